#!/bin/sh
# The same paths as bench.sh, where a nanosecond is one instruction of the guest.
# vm: seconds=3000 icount=shift=0,sleep=off
rounds=3 amount=12000000b
. "$(dirname "$0")/bench.sh"
