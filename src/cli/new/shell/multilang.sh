# shellcheck shell=sh
# Storm's multilang protocol with nothing but the shell, sed and tr, for tuples of one text.
# It cuts messages apart as workers of Stormkeeper write them: one line of JSON, and a line `end`.

tab=$(printf '\t')

# Answers the handshake. Call it first.
start() {
  read -r setup && read -r _ || exit 1
  pid_dir=${setup#*\"pidDir\":\"}
  : > "${pid_dir%%\"*}/$$"
  send "{\"pid\":$$}"
}

send() { printf '%s\nend\n' "$1"; }

# Reads the next message into $message. Ends with the input: the worker has stopped this component.
next_message() { read -r message && read -r _; }

# Prints a text as JSON.
json() {
  printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\010\012-\037' | sed "s/\\\\/\\\\\\\\/g; s/\"/\\\\\"/g; s/$tab/\\\\t/g")"
}

# Reads the next tuple of a bolt into $id and $text, or nothing into $id at a tick.
next_tuple() {
  while next_message; do
    case $message in
      *'"stream":"__heartbeat"'*) send '{"command":"sync"}' ;;
      *'"stream":"__tick"'*)
        id='' text=''
        return 0
        ;;
      '{"id":'*)
        id=${message#*\"id\":\"}
        id=${id%%\"*}
        text=${message#*\"tuple\":[\"}
        text=$(printf '%s' "${text%\"]\}}" | tr -d '\001' |
          sed "s/\\\\\\\\/$(printf '\001')/g; s/\\\\\"/\"/g; s/\\\\t/$tab/g; s/$(printf '\001')/\\\\/g")
        return 0
        ;;
    esac
  done
  return 1
}

# Emits a text for the tuple $id.
emit() { send "{\"command\":\"emit\",\"anchors\":[\"$id\"],\"tuple\":[$(json "$1")],\"need_task_ids\":false}"; }

ack() { send "{\"command\":\"ack\",\"id\":\"$id\"}"; }

log() { send "{\"command\":\"log\",\"level\":2,\"msg\":$(json "$1")}"; }
