#!/bin/sh
# What follows the image's name: flags are for the server (`docker run IMAGE --model MBZUAI/AIN`), anything else is
# a command of its own (`docker run -it IMAGE bash`). `exec`, so that SIGTERM reaches the server and it can drain.
set -eu
case ${1:--} in
    -*) exec python3 -m server "$@" ;;
    *) exec "$@" ;;
esac
