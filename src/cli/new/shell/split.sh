#!/bin/sh
# Emits the words of each line.
. ./multilang.sh
start
set -f # A word such as * stays as it is.
while next_tuple; do
  if [ -n "$id" ]; then
    for word in $text; do
      emit "$word"
    done
    ack
  fi
done
