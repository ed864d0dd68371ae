# Sourced by tools/vmtest: what the console must not say. Each line is one
# extended regular expression.
bad_words='panic: |^panic
Fatal (double fault|trap)
lock order reversal
acquiring duplicate lock
Sleeping on .* with the following non-sleepable locks held
with the following non-sleepable locks held
(exclusive|shared) .* locked @ .*(kmod|mobconn)
witness_|WITNESS: unable
KASSERT|Assertion .* failed
KASAN:|KCSAN:|KMSAN:
Memory modified after free
Duplicate (free|alloc) of item
leaked memory on destroy
Freed UMA keg .* was not empty
malloc\(M_WAITOK\)
Dumping [0-9]+ out of|Dump complete
spin lock .*(held by .* too long|held too long)
deadlres_td_|possible deadlock detected
kernel stack overflow
mobconn: panicked
sleepq_add: td .* to sleep on'

# Only from where the payload begins: what a kernel says of itself at boot is not the module's doing. If it never got
# there, all of it.
judge_console() { # FILE: prints the lines that must not be there; false if there are some
	begin=$(grep -a -n -m 1 '^vmtest: begins' "$1" | cut -d: -f1)
	lines=$(printf '%s\n' "$bad_words" | while IFS= read -r words; do
		tail -n "+${begin:-1}" "$1" | grep -a -n -E -m 3 -e "$words" || :
	done | sort -t: -k1n -u | head -n 20)
	[ -z "$lines" ] || { echo "$lines"; return 1; }
}
