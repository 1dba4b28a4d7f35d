/* Adds a fixed time to every flush, so that a benchmark sees a disk that is honest about them.
 *
 * Preloaded into a process, it sleeps SLOW_FLUSH_US microseconds after each fsync and fdatasync
 * once the real call has finished. Disks of shared machines often acknowledge a
 * flush before anything is on them; a consumer SSD takes about 2 ms. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void pause_a_flush(void) {
    static long us = -1;
    if (us < 0) {
        const char *text = getenv("SLOW_FLUSH_US");
        us = text ? atol(text) : 0;
    }
    if (us > 0) {
        struct timespec wait = {us / 1000000, (us % 1000000) * 1000};
        nanosleep(&wait, NULL);
    }
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    int answer = real(fd);
    pause_a_flush();
    return answer;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    int answer = real(fd);
    pause_a_flush();
    return answer;
}
