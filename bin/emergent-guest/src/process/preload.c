/* Given to programs under kernels whose statx(2) refuses AT_NO_AUTOMOUNT, which GNU ls and stat pass: statx without that
 * flag, which means nothing in a workspace. Needs nothing but a C library's syscall(3), so that it fits in any image. */

extern long syscall(long number, ...);

#define AT_NO_AUTOMOUNT 0x800

#if defined(__x86_64__)
#define SYS_statx 332L
#elif defined(__aarch64__)
#define SYS_statx 291L
#else
#error "the number of statx(2) on this machine is needed"
#endif

int statx(int directory, const char *path, int flags, unsigned int mask, void *buffer)
{
    return (int)syscall(SYS_statx, (long)directory, path, (long)(flags & ~AT_NO_AUTOMOUNT), (long)mask, buffer);
}
