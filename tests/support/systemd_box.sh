#!/bin/bash
# Runs as PID 1 of new namespaces (tests/support/systemd_box.py): builds a root of its own, then becomes systemd.
#   systemd_box.sh <scratch directory> <lower root> [<directory>=<where in the box>]...
# The root is an overlay on the lower one (this machine's is /): what is installed there is here, what is written here
# vanishes with the box.
set -eu
scratch=$1 lower=$2
shift 2
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$scratch"
mkdir "$scratch"/{upper,work,root}
root=$scratch/root
mount -t overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$root"

mkdir -p "$root"/{proc,sys,dev,run,tmp,mnt}
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
for name in sys sysrq-trigger; do
    if [ ! -e "$root/proc/$name" ]; then continue; fi
    mount --bind "$root/proc/$name" "$root/proc/$name"
    mount -o remount,bind,ro "$root/proc/$name"
done
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root"/dev/{pts,shm,mqueue}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
for share in "$@"; do
    mkdir -p "$root${share#*=}"
    mount --rbind "${share%%=*}" "$root${share#*=}"
done

# A target of our own: the basic one and nothing that looks for hardware, clocks, terminals or the wider network.
units=$root/run/systemd/system
mkdir -p "$units" "$root/run/systemd/journald.conf.d" "$root/run/lock"
for unit in systemd-udevd.service systemd-udev-{trigger,settle}.service systemd-udevd-{kernel,control}.socket \
    systemd-{networkd,resolved,timesyncd,modules-load,sysctl,binfmt,remount-fs,random-seed,firstboot,pstore,homed}.service \
    systemd-{hwdb-update,update-utmp,machine-id-commit,tmpfiles-setup-dev}.service systemd-journald-audit.socket \
    sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
    proc-sys-fs-binfmt_misc.automount modprobe@.service dbus.service dbus.socket; do
    ln -sf /dev/null "$units/$unit"
done
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >"$units/../journald.conf.d/box.conf"
printf '[Unit]\nRequires=sysinit.target sockets.target\nAfter=sysinit.target sockets.target\nAllowIsolate=yes\n' \
    >"$units/box.target"
for kept in "$root/var/log/journal" "$root/etc/systemd/system"; do
    if [ -d "$kept" ]; then mount -t tmpfs -o mode=755 tmpfs "$kept"; fi
done
ip link set lo up

cd "$root"
pivot_root . mnt
umount -l /mnt
cd /
exec env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=box.target --log-target=journal-or-kmsg --show-status=0 </dev/null
