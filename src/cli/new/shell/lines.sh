#!/bin/sh
# Emits each line of lines.txt once. Read your own source here.
. ./multilang.sh
start
exec 3< lines.txt
number=0
while next_message; do
  case $message in
    *'"command":"next"'*)
      if IFS= read -r line <&3; then
        number=$((number + 1))
        send "{\"command\":\"emit\",\"id\":$number,\"tuple\":[$(json "$line")],\"need_task_ids\":false}"
      fi
      ;;
    *'"command":"fail"'*) log "not processed: $message" ;;
  esac
  send '{"command":"sync"}'
done
