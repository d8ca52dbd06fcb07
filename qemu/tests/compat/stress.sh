# stress-ng checks its own work: each stressor must end on a node as it ends on Linux.
cd "$TMPDIR"
stressors="access af-alg atomic bigheap brk bsearch cache cap chdir chmod chown clock clone close context cpu crypt
daemon dekker dentry dev-shm dir dirdeep dirmany dnotify dup dynlib enosys env epoll eventfd exec exit-group fallocate
fault fcntl file-ioctl fiemap fifo flock fork fp-error fpunch fstat full funcret futex get getdent getrandom handle
hash hdd heapsort hsearch inode-flags inotify io itimer kcmp kill lease link locka lockbus lockf lockofd longjmp
lsearch madvise malloc matrix membarrier memcpy memfd memrate memthrash mergesort metamix mincore misaligned mknod mlock
mmap mmapaddr mmapfixed mmapfork mmaphuge mmapmany mprotect mq mremap msg msync mutex nanosleep nice null opcode open
peterson physpage pidfd pipe pipeherd poll prctl prefetch procfs pthread ptrace pty qsort radixsort regs
remap rename resources revio rlimit rmap rseq schedpolicy sem sem-sysv sendfile session set shellsort shm shm-sysv
sigabrt sigchld sigfd sigfpe sigio signal signest sigpending sigpipe sigq sigrt sigsegv sigsuspend sigtrap skiplist
sleep sock sockabuse sockdiag sockfd sockmany sockpair spawn splice stack stackmmap str stream switch symlink
sync-file sysinfo tee timer timerfd tlb-shootdown touch tree tsc udp umask unlink urandom userfaultfd utime
vdso vecmath vfork vforkmany vm vm-addr vm-rw vm-segv vm-splice wait wcs x86syscall xattr yield zero zlib zombie"
for stressor in $stressors; do
    timeout -k 5 60 stress-ng "--$stressor" 2 "--$stressor-ops" 20 --timeout 5 --verify --temp-path "$TMPDIR" \
        --no-rand-seed --oom-avoid >"$stressor.log" 2>&1
    echo "$stressor $? $(grep -qi skipp "$stressor.log" && echo skipped)"
    rm -rf "$stressor.log" tmp-stress-ng* 2>/dev/null
done
