#!/bin/bash
# Linux for comparisons on machines as they are sold: Debian's full kernel, which has the
# drivers that its cloud kernel lacks, and media with either, of the harness's programs.
#   $BENCH_OUT/full, $BENCH_OUT/cloud:
#     vmlinuz                the kernel
#     min.cpio(.lz4)         init and web server, and the driver of the network device
#     tools.cpio             with a shell, and drivers of all that is measured (full only)
#     bios.img uefi.img      disks: syslinux on FAT; a bundle with the EFI stub on FAT
#     bootx64.efi boot.ipxe  for UEFI and for iPXE over the network
# Needs, beyond build.sh of the harness: apt-get install kmod
set -euo pipefail
OUT=${BENCH_OUT:-/tmp/skep-bench}
CMD="console=ttyS0 panic=-1 quiet -- stay /bin/httpd 80"
STUB=/usr/lib/systemd/boot/efi/linuxx64.efi.stub
PATH=$PATH:/usr/sbin:/sbin
cd "$OUT"
say() { echo "== $*"; }
fail() { echo "linux.sh: $*" >&2; exit 1; }
for tool in apt-cache dpkg-deb depmod modprobe cpio lz4 objcopy mkfs.fat mcopy syslinux; do
    command -v $tool >/dev/null || fail "$tool is missing; see build.sh of the harness, and kmod"
done
for file in "$STUB" ird/init vmlinuz; do
    [ -e "$file" ] || fail "$file is missing: run build.sh of the harness first"
done
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

pack() { (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible); }

# initramfs OUT MODULE...: the harness's, with these modules and what they need.
initramfs() {
    local out=$1 module path; shift
    rm -rf ird/modules && mkdir ird/modules
    for module in "$@"; do
        modprobe -d "$work/k" -S "$version" --show-depends "$module" || fail "no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' > "$work/paths"
    while read -r path; do
        cp "$path" ird/modules/ && basename "$path"
    done < "$work/paths" > ird/modules/order
    pack ird > "$out"
}

# bundle OUT FOLDER: kernel, initramfs and command line in one program for UEFI.
bundle() {
    local end=0 size vma e
    printf '%s' "$CMD" > "$work/cmdline"
    # The first address after the stub's own sections.
    while read -r _ _ size vma _; do
        e=$((0x$size + 0x$vma)); [ $e -le $end ] || end=$e
    done < <(objdump -h $STUB | grep -E '^ +[0-9]+ ')
    at() { printf '0x%x' $(((end + $1 + 65535) / 65536 * 65536)); }
    objcopy --add-section ".cmdline=$work/cmdline" --change-section-vma ".cmdline=$(at 0)" \
        --add-section ".linux=$2/vmlinuz" --change-section-vma ".linux=$(at 65536)" \
        --add-section ".initrd=$2/min.cpio.lz4" \
        --change-section-vma ".initrd=$(at $((65536 + $(stat -c %s "$2/vmlinuz"))))" $STUB "$1"
}

fat() { rm -f "$1"; truncate -s 18M "$1"; mkfs.fat -n NODE "$1" >/dev/null; }

# media FOLDER: everything that firmware starts, of vmlinuz and min.cpio.
media() {
    local d=$1
    lz4 -q -f -l -9 "$d/min.cpio" "$d/min.cpio.lz4"
    bundle "$d/bootx64.efi" "$d"
    fat "$d/uefi.img"
    mmd -i "$d/uefi.img" ::EFI ::EFI/BOOT
    mcopy -i "$d/uefi.img" "$d/bootx64.efi" ::EFI/BOOT/BOOTX64.EFI
    fat "$d/bios.img"
    mcopy -i "$d/bios.img" "$d/vmlinuz" ::vmlinuz
    mcopy -i "$d/bios.img" "$d/min.cpio.lz4" ::initrd
    printf 'DEFAULT l\nPROMPT 0\nTIMEOUT 0\nLABEL l\n KERNEL vmlinuz\n INITRD initrd\n APPEND %s\n' \
        "$CMD" > "$work/syslinux.cfg"
    mcopy -i "$d/bios.img" "$work/syslinux.cfg" ::syslinux.cfg
    syslinux --install "$d/bios.img"
    # From where the script itself is; under UEFI the kernel looks for its initramfs by name.
    printf '#!ipxe\nkernel vmlinuz initrd=min.cpio.lz4 %s\ninitrd min.cpio.lz4\nboot\n' \
        "$CMD" > "$d/boot.ipxe"
}

say "cloud kernel, as the harness has it"
mkdir -p cloud full dl
cp vmlinuz cloud/vmlinuz
cp min.cpio cloud/min.cpio
media cloud

say "full kernel"
package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/{print $2; exit}')
version=${package#linux-image-}
ls dl/"$package"_*.deb >/dev/null 2>&1 || (cd dl && apt-get download -q "$package")
dpkg-deb -x dl/"$package"_*.deb "$work/k"
depmod -b "$work/k" "$version"
cp "$work/k/boot/vmlinuz-$version" full/vmlinuz

cp -a ird "$work/ird" && cd "$work"
mkdir full
initramfs full/tools.cpio virtio_pci virtio_net virtio_blk virtio_rng e1000 e1000e nvme ahci sd_mod ext4
# As the harness has its smallest: no more than serves HTTP.
rm -rf ird/bin && mkdir ird/bin && cp "$OUT/httpd" ird/bin/
initramfs full/min.cpio e1000e
cp full/*.cpio "$OUT/full/" && cd "$OUT"
media full
touch linux-prepared
ls -l full cloud
