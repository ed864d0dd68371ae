# Sourced by tools/vmtest: one machine in QEMU, on its own processors where it
# may, else emulated. Sets of variables that begin with `machine_` describe it:
#
#	machine_name, machine_tar, machine_out	its name; payload; disk for results
#	machine_console, machine_keyboard	file with what it says; fifo
#	machine_environment			kernel environment, NAME=VALUE ...
#	machine_links				sockets of cables to the other machine
#	machine_tap				1: two cards on a bridge of the host's kernel
#	machine_names				folder of a name server on that bridge, if there is to be one
#	machine_icount				QEMU's -icount, if instructions are to be time

qemu=$(command -v "${VM_QEMU:-qemu-system-x86_64}" || :)

qemu_check() { # whether it can be used; says why not
	[ -n "$qemu" ] || { echo "no qemu-system-x86_64 here: install QEMU (Debian: qemu-system-x86)"; return 1; }
	case $VM_IMAGE in
	*.xz | *.gz | *.zst) echo "$VM_IMAGE is compressed: unpack it first"; return 1 ;;
	?*) command -v xorriso >/dev/null || { echo "no xorriso here, to make a seed disk for $VM_IMAGE: install it"; return 1; } ;;
	esac
}

# Processors of its own if /dev/kvm can be used and works.
qemu_accelerator() {
	if [ -n "${VM_ACCEL:-}" ]; then
		echo "$VM_ACCEL"
	elif [ -r /dev/kvm ] && [ -w /dev/kvm ] && echo quit | timeout 10 "$qemu" -M q35 -cpu "${VM_CPU:-max}" -m 64 -accel kvm -display none -nodefaults -S -monitor stdio >/dev/null 2>&1; then
		echo kvm
	else
		echo tcg,thread=multi
	fi
}

# Real checksum offload and segmentation between two virtio cards need a tap
# device each, with headers: Linux and root, in a network namespace of its own.
qemu_can_tap() {
	[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] && command -v ip >/dev/null && command -v unshare >/dev/null &&
	    unshare -n ip tuntap add dev probe mode tap vnet_hdr 2>/dev/null
}

# And a name server beside them, which ends with the machine.
qemu_can_name() {
	qemu_can_tap && PATH=$PATH:/usr/sbin command -v named >/dev/null && command -v setpriv >/dev/null
}

qemu_run() { # the machine, until it powers off
	format=raw
	case $VM_IMAGE in
	*.qcow2) format=qcow2 ;;
	esac
	accelerator=$(qemu_accelerator) processors=$VM_CPUS
	# Counting instructions is for one emulated processor.
	[ -z "$machine_icount" ] || accelerator=tcg,thread=single processors=1
	set -- -name "$machine_name" -M q35,usb=off -accel "$accelerator" -cpu "${VM_CPU:-max}" \
	    -m "$VM_MEMORY" -smp "$processors" -display none -nodefaults -no-user-config -no-reboot \
	    -chardev stdio,id=console,signal=off,mux=off -serial chardev:console -device virtio-rng-pci
	if [ -n "$VM_KERNEL" ]; then
		set -- "$@" -kernel "$VM_KERNEL" -append "$machine_environment" \
		    -drive "file=$VM_ROOT,format=raw,if=none,id=root,snapshot=on"
	else
		set -- "$@" -drive "file=$VM_IMAGE,format=$format,if=none,id=root,snapshot=on"
	fi
	set -- "$@" -device virtio-blk-pci,drive=root \
	    -drive "file=$machine_tar,format=raw,if=none,id=payload,readonly=on" -device virtio-blk-pci,drive=payload \
	    -drive "file=$machine_out,format=raw,if=none,id=results" -device virtio-blk-pci,drive=results
	[ -z "$VM_IMAGE" ] || set -- "$@" -drive "file=$seed,format=raw,if=none,id=seed,readonly=on" -device virtio-blk-pci,drive=seed
	card=0
	for link in $machine_links; do
		# A cable is two names of one socket: NAME.a and NAME.b.
		case $link in
		*.a) other=${link%.a}.b ;;
		*) other=${link%.b}.a ;;
		esac
		rm -f "$link"
		set -- "$@" -netdev "dgram,id=link$card,local.type=unix,local.path=$link,remote.type=unix,remote.path=$other" \
		    -device "virtio-net-pci,netdev=link$card,mac=52:54:00:4d:$(printf '%02x' "$machine_number"):$(printf '%02x' $card)"
		card=$((card + 1))
	done
	[ -z "$machine_icount" ] || set -- "$@" -icount "$machine_icount"
	if [ "${machine_tap:-0}" = 1 ]; then
		for card in 0 1; do
			set -- "$@" -netdev "tap,id=tap$card,ifname=tap$card,script=no,downscript=no,vnet_hdr=on" \
			    -device "virtio-net-pci,netdev=tap$card,mac=52:54:00:4d:aa:0$card"
		done
		# shellcheck disable=SC2016 # the inner shell's
		names=${machine_names:-} vm=$vm PATH=$PATH:/usr/sbin exec unshare -n sh -ec '
			ip link add name wire type bridge
			for card in 0 1; do
				ip tuntap add dev tap$card mode tap vnet_hdr
				ip link set dev tap$card master wire up
			done
			ip link set dev wire up
			if [ -n "$names" ]; then sh "$vm/host/names.sh" wire "$names" "$vm/guest/names.key" & fi
			exec "$@"' sh "$qemu" "$@"
	fi
	exec "$qemu" "$@"
}
