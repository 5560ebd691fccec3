#!/bin/sh
# Copy the logs of every session of Ray below $1 to $2/$POD every minute, and once more when this is told to end.
#
#   POD=sr3-head-x7k2p sh keep-logs.sh /tmp/ray /shared/logs
#
# Beside Ray in its pod, whose own disk is gone with it (cluster/kuberay/raycluster.yaml).
sessions=$1 kept=$2/${POD:?the name of the pod}
every=${KEEP_LOGS_SECONDS:-60}
days=${KEEP_LOGS_DAYS:-14}

copy() {
    for logs in "$sessions"/session_2*/logs; do
        [ -d "$logs" ] || continue
        session=$(basename "$(dirname "$logs")")
        mkdir -p "$kept/$session"
        # 24: a log was rotated away meanwhile
        rsync --recursive --links --times "$logs/" "$kept/$session/" || [ $? = 24 ] || echo "the logs were not copied" >&2
    done
}

end() {
    copy
    exit 0
}

trap end TERM INT
while :; do
    copy
    find "$2" -type f -mtime "+$days" -delete
    sleep "$every" &
    wait $!
done
