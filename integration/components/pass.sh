#!/bin/sh
# Passes words on, with nothing but the shell. It cuts the JSON apart where the worker writes it.
read -r setup
read -r _
pid_dir=${setup#*\"pidDir\":\"}
: > "${pid_dir%%\"*}/$$"
printf '{"pid":%s}\nend\n' "$$"
while read -r message; do
  read -r _
  case $message in
    *'"stream":"__heartbeat"'*)
      printf '{"command":"sync"}\nend\n'
      ;;
    '{"id":'*)
      id=${message#*\"id\":\"}
      id=${id%%\"*}
      values=${message#*\"tuple\":}
      printf '{"command":"emit","anchors":["%s"],"tuple":%s,"need_task_ids":false}\nend\n' "$id" "${values%\}}"
      printf '{"command":"ack","id":"%s"}\nend\n' "$id"
      ;;
  esac
done
