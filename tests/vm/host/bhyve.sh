# Sourced by tools/vmtest on FreeBSD: one machine in bhyve(8). The same
# variables as in qemu.sh. Guests write to their disk: it is copied first.

bhyve_check() {
	[ "$(id -u)" = 0 ] || { echo "bhyve needs root"; return 1; }
	kldload -n vmm 2>/dev/null || { echo "no vmm(4): this processor or this kernel has no virtualisation"; return 1; }
	for program in bhyve bhyveload bhyvectl; do
		command -v $program >/dev/null || { echo "no $program(8) here"; return 1; }
	done
	case $VM_IMAGE in
	*.xz | *.gz | *.zst) echo "$VM_IMAGE is compressed: unpack it first"; return 1 ;;
	*.qcow2)
		command -v qemu-img >/dev/null || {
			echo "bhyve takes raw images: get the .raw one, or qemu-img(1) to convert $VM_IMAGE"
			return 1
		}
		;;
	esac
}

bhyve_run() { # the machine, until it powers off
	vm=mobconn-$machine_name-$$
	disk=$logs/$machine_name.disk
	taps=
	trap 'bhyvectl --destroy --vm="$vm" 2>/dev/null; for tap in $taps; do ifconfig "$tap" destroy; done; rm -rf "$disk" "$disk.boot"' EXIT
	case ${VM_IMAGE:-$VM_ROOT} in
	*.qcow2) qemu-img convert -O raw "$VM_IMAGE" "$disk" ;;
	*) cp "${VM_IMAGE:-$VM_ROOT}" "$disk" ;;
	esac
	set -- -m "${VM_MEMORY}M" -c stdio
	if [ -n "$VM_KERNEL" ]; then
		# The loader takes the kernel from a folder of this host's, with this host's own loader scripts.
		mkdir -p "$disk.boot/boot/kernel"
		cp "$VM_KERNEL" "$disk.boot/boot/kernel/kernel"
		for part in defaults lua; do
			[ -d "/boot/$part" ] && cp -R "/boot/$part" "$disk.boot/boot/"
		done
		set -- "$@" -h "$disk.boot" -e vfs.root.mountfrom=ufs:/dev/vtbd0
		for variable in $machine_environment; do set -- "$@" -e "$variable"; done
	else
		set -- "$@" -d "$disk"
		for variable in $machine_environment; do set -- "$@" -e "$variable"; done
	fi
	bhyveload "$@" "$vm" </dev/null || exit 1
	set -- -A -H -P -c "$VM_CPUS" -m "${VM_MEMORY}M" -s 0,hostbridge -s 1,lpc -l com1,stdio \
	    -s "2,virtio-blk,$disk" -s "3,virtio-blk,$machine_tar,ro" -s "4,virtio-blk,$machine_out" -s 6,virtio-rnd
	[ -z "$VM_IMAGE" ] || set -- "$@" -s "5,virtio-blk,$seed,ro"
	slot=7
	for link in $machine_links; do
		# A cable is a bridge(4) with a tap(4) of each machine, named after the socket that QEMU would use.
		cable=mbc$(printf '%s' "${link%.?}" | cksum | cut -c 1-6)
		ifconfig "$cable" >/dev/null 2>&1 || ifconfig bridge create name "$cable" >/dev/null
		tap=$(ifconfig tap create)
		taps="$taps $tap"
		ifconfig "$cable" addm "$tap" up
		ifconfig "$tap" up
		set -- "$@" -s "$slot,virtio-net,$tap"
		slot=$((slot + 1))
	done
	# Beside this shell, so that it hears when it is told to stop.
	exec 5<&0
	bhyve "$@" "$vm" <&5 &
	child=$!
	trap 'kill $child; exit 1' TERM
	status=0
	wait $child || status=$?
	# The last one takes the cable away.
	for link in $machine_links; do
		cable=mbc$(printf '%s' "${link%.?}" | cksum | cut -c 1-6)
		for tap in $taps; do ifconfig "$cable" deletem "$tap" 2>/dev/null || :; done
		ifconfig "$cable" 2>/dev/null | grep -q member: || ifconfig "$cable" destroy 2>/dev/null || :
	done
	# 1 is a power-off.
	[ "$status" = 1 ] && status=0
	exit "$status"
}
