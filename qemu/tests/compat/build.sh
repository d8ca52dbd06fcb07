# gcc and make: a program of several files, a library, threads, and a failing rule.
set -eu
mkdir p && cd p
for i in $(seq 1 6); do printf '#include "p.h"\nint f%d(int x) { return x * %d; }\n' "$i" "$i" >"f$i.c"; done
printf '#pragma once\n%s\n' "$(for i in $(seq 1 6); do echo "int f$i(int);"; done)" >p.h
cat >main.c <<'C'
#include "p.h"
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
static atomic_int total;
static _Thread_local int own;
static void *work(void *n) { for (int i = 0; i < 1000; i++) { own++; total += f2((int)(long)n); } return (void *)(long)own; }
int main(void) {
    pthread_t t[8];
    for (long n = 0; n < 8; n++) pthread_create(&t[n], NULL, work, (void *)n);
    long sum = 0;
    for (int n = 0; n < 8; n++) { void *r; pthread_join(t[n], &r); sum += (long)r; }
    printf("%d %ld %d %.6f\n", total, sum, f1(1) + f3(1) + f6(1), sqrt(2));
    void *plug = dlopen("./plug.so", RTLD_NOW);
    int (*call)(void) = (int (*)(void))dlsym(plug, "call");
    printf("plug %d\n", call ? call() : -1);
    return 0;
}
C
echo 'int call(void) { return 77; }' >plug.c
cat >Makefile <<'M'
objects := $(patsubst %.c,%.o,$(wildcard f*.c)) main.o
all: prog plug.so
prog: $(objects) ; gcc -o $@ main.o -L. -Wl,--start-group libf.a -Wl,--end-group -lm -pthread
prog: libf.a
libf.a: $(filter-out main.o,$(objects)) ; ar rcsD $@ $^
%.o: %.c p.h ; gcc -O2 -Wall -Werror -c -o $@ $<
plug.so: plug.c ; gcc -shared -fPIC -o $@ $<
fail: ; @echo failing; exit 3
M
make -j3 -s && ./prog
make -s && echo "nothing to do"
touch f3.c && make -n | grep -c gcc
make -s fail 2>/dev/null || echo "make: $?"
echo 'int main(void) { return x; }' | gcc -x c - -o bad 2>&1 | grep -o "'x' undeclared" | head -n 1
printf '#include <iostream>\n#include <map>\n#include <stdexcept>\n#include <thread>\nint main() { std::map<std::string,int> m{{"a",1},{"b",2}}; int s = 0; std::thread t([&]{ for (auto &[k, v] : m) s += v; }); t.join(); try { throw std::runtime_error("thrown"); } catch (std::exception &e) { std::cout << s << " " << e.what() << std::endl; } }\n' >c.cc
g++ -std=c++17 -O1 c.cc -o c -pthread && ./c
gcc -O2 -static -o static main.c f*.c -lm 2>/dev/null && ./static | head -n 1
printf 'int main(void) { char *p = 0; *p = 1; }' | gcc -x c - -o crash && { sh -c './crash; exit $?' 2>/dev/null || echo "crashed: $?"; }
nm prog | grep -c ' T f[1-6]$'
readelf -h prog | grep -E 'Type|Machine'
objdump -d f1.o | grep -c ret
