# The front door, for BSD make and GNU make alike: every target is a script in
# tools/. `make` builds all, `make check` is quick, `make test` is everything
# that needs no FreeBSD kernel.

all: kmod mobctl

setup:
	@MOBCONN_FREEBSD="$(MOBCONN_FREEBSD)" tools/setup

# MOBCONN_FREEBSD=15: for that branch, in build/freebsd15.
kmod: setup
	@MOBCONN_FREEBSD="$(MOBCONN_FREEBSD)" tools/kmod

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

# On a real FreeBSD kernel, in virtual machines: see tests/vm/README.md.
machine = VM_IMAGE="$(VM_IMAGE)" VM_KERNEL="$(VM_KERNEL)" VM_ROOT="$(VM_ROOT)" VM_ENV="$(VM_ENV)" VM_CPUS="$(VM_CPUS)" \
    VM_MEMORY="$(VM_MEMORY)" VM_PATIENCE="$(VM_PATIENCE)" VM_QEMU="$(VM_QEMU)" VM_ACCEL="$(VM_ACCEL)"

vmtest: all
	@$(machine) tools/vmtest $(SCENARIOS)

vmbench: all
	@$(machine) tools/vmbench

install:
	@tools/install

# build/mobconn-VERSION.pkg, for pkg(8).
package: all
	@tools/package

# Leaves what was downloaded in build/tools.
clean:
	@tools/clean

.PHONY: all setup kmod mobctl check test test-long fuzz demo bench vmtest vmbench install package clean
