#!/bin/sh
# Counts words, and logs after a change how many there were.
. ./multilang.sh
start
total=0
logged=0
last=
while next_tuple; do
  if [ -n "$id" ]; then
    # Only letters and digits are counted: they name a variable of the shell.
    key=$(printf '%s' "$text" | tr -cd 'A-Za-z0-9')
    eval "count_$key=\$((\${count_$key:-0} + 1)); last=\"$key \$count_$key\""
    total=$((total + 1))
    ack
  elif [ "$total" -gt "$logged" ]; then
    log "$total words; the last one: $last"
    logged=$total
  fi
done
