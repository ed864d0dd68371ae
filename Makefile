# The front door, for BSD make and GNU make alike: every target is a script in
# tools/. `make` builds all, `make check` is quick, `make test` is everything
# that needs no FreeBSD kernel.

all: kmod mobctl

setup:
	@tools/setup

kmod: setup
	@tools/kmod

mobctl: setup
	@tools/mobctl

check: kmod
	@tools/check

test: all
	@tools/test

test-long: all
	@tools/test long

# An hour over all targets; see tools/fuzz for less and for more.
fuzz:
	@tools/fuzz 3600

demo: all
	@tools/demo

bench: all
	@tools/bench

install:
	@tools/install

# Leaves what was downloaded in build/tools.
clean:
	@tools/clean

.PHONY: all setup kmod mobctl check test test-long fuzz demo bench install clean
