"""The media room: what a client names as a picture, clip or document becomes patches that the vision tower can take.

prepare     all of the below in order, for all that a request holds
setup       settings -> a room that is ready to start
limits      what pictures, clips and documents may cost
checks      what is refused before anything is fetched or decoded, and what a request has used so far
memory      how much all requests at work may take together; they wait for their share
sources     a url -> bytes in the request, an address to fetch from, or a file of this machine
formats     the table of formats: what a file is, by its first bytes, and what it becomes
heads       the first bytes of a file that is still in base64
headers     how large a picture says it is
estimate    what a source will cost, by its header
digest      names for prepared pictures: equal names mean equal patches
cache       values bounded in bytes, and work that several wait for
pixels      pure arithmetic: target sizes and token counts
frames      pure arithmetic: which frames of a clip, and how large

fetching/   files that a request only names
    addresses   which network addresses a stranger's url may lead to
    fetch       the only file that opens sockets to other machines
    remote      fetched files, kept and shared out fairly between callers
    freshness   how long they may be kept: the rules of HTTP caching
    files       which files of this machine may be opened

workers/    processes in a box, with little memory and time
    pool        the decode workers, seen from the server: started, timed, replaced
    channel     messages between both, with memory attached
    jobs        what a worker is asked for, and what it answers
    worker      a decode worker: a process of little memory and time
    box         what it gives up before its first job
    work        what it does with a job

decoding/   bytes to patches, in a worker
    decode      bytes of a picture file -> upright RGB pixels
    heif        HEIC and AVIF pictures, by their own libraries
    tiff        the pages of a scan
    video       bytes of a clip file -> the frames that the model sees
    mpeg        what no transport stream of a camera has
    animation   animated PNG and WebP files, and pictures, as clips
    pdf         bytes of a PDF -> pixels of its pages
    resize      Pillow's bicubic filter, at several times its speed
    samples     a small file for each of these ways
    patches     pixels -> patches, in the order of the vision tower
"""
