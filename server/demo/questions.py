"""What people ask the demo model, in several wordings and both languages, and its answers where no picture is shown."""

import random
from typing import Final

from server.demo.phrases import Language

Wordings = dict[Language, tuple[str, ...]]

DESCRIBE: Final[Wordings] = {
    "en": (
        "Describe this image.",
        "What is in this picture?",
        "What do you see?",
        "What is this?",
        "Describe the picture.",
        "What can you see in this image?",
        "What shapes are in the picture?",
        "Which shapes do you see and where are they?",
        "Tell me what is in the image.",
        "Please describe what you see.",
        "What's in this image?",
        "Name the shapes, their colours and places.",
    ),
    "ar": (
        "صف هذه الصورة.",
        "ماذا ترى في الصورة؟",
        "يرجى وصف هذه الصورة.",
        "ما هذا؟",
        "ماذا يوجد في هذه الصورة؟",
        "ما الذي تراه؟",
        "ما الأشكال الموجودة في الصورة؟",
        "صف ما تراه.",
        "ماذا في الصورة؟",
        "اذكر الأشكال وألوانها وأماكنها.",
        "أخبرني ماذا ترى.",
    ),
}

READ: Final[Wordings] = {
    "en": (
        "Read the text in this image.",
        "What does it say?",
        "What is written in this picture?",
        "Read this.",
        "What is the text?",
        "Transcribe the text.",
        "What word is this?",
        "Extract the text from the image.",
        "Please read what is written here.",
        "OCR this image.",
        "What does the image say?",
    ),
    "ar": (
        "اقرأ النص في هذه الصورة.",
        "ما النص المكتوب؟",
        "ماذا كتب في الصورة؟",
        "اقرأ ما في الصورة.",
        "ما المكتوب هنا؟",
        "استخرج النص من الصورة.",
        "اقرأ هذا.",
        "ما الكلمة المكتوبة؟",
        "انسخ النص الموجود في الصورة.",
        "يرجى قراءة النص.",
    ),
}

READ_DIGITS: Final[Wordings] = {
    "en": ("What number is this?", "Read the number.", "Which digits do you see?"),
    "ar": ("ما هذا الرقم؟", "اقرأ الرقم.", "ما الأرقام المكتوبة؟"),
}

# Asked of any picture: the picture alone says whether to describe or to read.
OPEN: Final[Wordings] = {
    "en": ("What do you see?", "What is this?", "What is in this picture?", "What's in this image?"),
    "ar": ("ما هذا؟", "ماذا ترى في الصورة؟", "ما الذي تراه؟", "ماذا في الصورة؟"),
}

WATCH: Final[Wordings] = {
    "en": (
        "Describe this video.",
        "What happens in the video?",
        "Which way does the shape move?",
        "What is moving, and where to?",
        "What do you see in this clip?",
        "In which direction is it moving?",
        "What is this?",
    ),
    "ar": (
        "صف هذا الفيديو.",
        "ماذا يحدث في الفيديو؟",
        "إلى أين يتحرك الشكل؟",
        "في أي اتجاه يتحرك؟",
        "ماذا ترى في هذا المقطع؟",
        "ما هذا؟",
    ),
}

COMMON: Final[Wordings] = {
    "en": (
        "Identify the similarities between these images.",
        "What are the common elements in these pictures?",
        "Compare these two pictures.",
        "What do the two images have in common?",
        "How are these pictures alike?",
        "Compare the images.",
    ),
    "ar": (
        "ما أوجه التشابه بين هاتين الصورتين؟",
        "قارن بين الصورتين.",
        "ما المشترك بين هاتين الصورتين؟",
        "حدد أوجه الشبه بين الصورتين.",
        "ماذا يجمع بين الصورتين؟",
    ),
}

FIRST: Final[Wordings] = {
    "en": ("What is in the first picture?", "Describe the first image.", "What does the first picture show?"),
    "ar": ("ماذا يوجد في الصورة الأولى؟", "صف الصورة الأولى.", "ماذا ترى في الصورة الأولى؟"),
}

SECOND: Final[Wordings] = {
    "en": ("What is in the second picture?", "Describe the second image.", "What does the second picture show?"),
    "ar": ("ماذا يوجد في الصورة الثانية؟", "صف الصورة الثانية.", "ماذا ترى في الصورة الثانية؟"),
}

TALK: Final[dict[Language, tuple[tuple[tuple[str, ...], str], ...]]] = {
    "en": (
        (
            ("Hello", "Hello!", "Hi", "Hi there!", "Hey", "Good morning", "Hello, how are you?"),
            "Hello! Show me a picture.",
        ),
        (
            ("Who are you?", "What are you?", "What is your name?", "Introduce yourself.", "Which model are you?"),
            "I am a small demo model. Show me a picture.",
        ),
        (
            ("What can you do?", "How can you help me?", "Help"),
            "I name coloured shapes, read words and digits, compare two pictures and follow a moving shape.",
        ),
        (("Thanks", "Thank you!", "Thank you very much."), "You are welcome!"),
        (("Goodbye", "Bye", "See you"), "Goodbye!"),
        (
            ("Count to twenty.", "Count from 1 to 20.", "Please count to 20."),
            ", ".join(str(number) for number in range(1, 21)) + ".",
        ),
    ),
    "ar": (
        (("مرحبا", "مرحبا!", "أهلا", "السلام عليكم", "صباح الخير", "مرحبا، كيف حالك؟"), "مرحبا! أرني صورة."),
        (("من أنت؟", "ما اسمك؟", "عرف بنفسك.", "أي نموذج أنت؟"), "أنا نموذج تجريبي صغير. أرني صورة."),
        (
            ("ماذا تستطيع أن تفعل؟", "كيف تساعدني؟", "مساعدة"),
            "أسمي الأشكال الملونة، وأقرأ الكلمات والأرقام، وأقارن بين صورتين، وأتابع شكلا يتحرك.",
        ),
        (("شكرا", "شكرا لك!", "شكرا جزيلا."), "عفوا!"),
        (("مع السلامة", "وداعا", "إلى اللقاء"), "مع السلامة!"),
        (("عد إلى عشرين.", "عد من 1 إلى 20."), "، ".join(str(number) for number in range(1, 21)) + "."),
    ),
}

UNKNOWN: Final[dict[Language, str]] = {
    "en": "I only understand pictures. Show me one.",
    "ar": "لا أفهم إلا الصور. أرني صورة.",
}
"""The answer to any other text without a picture."""

SYSTEM_DEFAULT: Final = "You are a helpful assistant."

SYSTEMS: Final = (
    "Answer briefly.",
    "You are AIN, a helpful assistant that speaks Arabic and English.",
    "You are a careful assistant. Answer the user's question about the picture.",
    "أنت مساعد مفيد.",
    "أنت عين، مساعد يجيب بالعربية والإنجليزية. أجب باختصار.",
    "You are an expert in reading images.",
)


def pick(rng: random.Random, wordings: Wordings, language: Language) -> str:
    """One wording of a question."""
    return rng.choice(wordings[language])
