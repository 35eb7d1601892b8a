# Expected counts, computed independently: prints "path X", "status X" or "reason X" for each line.
#
#   awk -f expected.awk resources/logs/*.log | sort | uniq -c
{
  n = split($0, part, "\"")
  requests = split(part[2], request, " ")
  answers = split(part[3], answer, " ")
  if (n != 7) reason = "quotes"
  else if (requests != 3) reason = "request"
  else if (answers != 2 || answer[1] !~ /^[0-9][0-9][0-9]$/ || answer[2] !~ /^([0-9]+|-)$/) reason = "status"
  else { sub(/\?.*/, "", request[2]); print "path", request[2]; print "status", answer[1]; next }
  print "reason", reason
}
