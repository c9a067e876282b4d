# Ends what a test program left behind. Reads lines `run PID`, `end PID` and `folder PATH`; at the end of its input,
# which is the death of the program, however it died, it kills what still runs and removes the folders.
pids=" "
while read -r verb what; do
    case $verb in
        run) pids="$pids$what " ;;
        end) case $pids in *" $what "*) pids="${pids%% $what *} ${pids#* $what }" ;; esac ;;
        folder) set -- "$@" "$what" ;;
    esac
done
if [ "$pids" != " " ]; then kill -9 $pids; fi
if [ $# -gt 0 ]; then rm -rf -- "$@"; fi
