/* base/banned.h - functions that do not compile here, with what to call instead.
 *
 * Included last by every .c file's build (-include): each of these has cost somebody a bug. */
#ifndef TIS_BASE_BANNED_H
#define TIS_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#undef sprintf
#undef strcpy
#undef strcat
#undef strtok
#undef gmtime
#undef localtime
#undef atoi
#undef alloca

#pragma GCC poison sprintf   /* snprintf, bytes_printf */
#pragma GCC poison strcpy    /* memcpy with a known length */
#pragma GCC poison strcat    /* bytes_append */
#pragma GCC poison strtok    /* strtok_r, or scan by hand */
#pragma GCC poison gmtime    /* gmtime_r */
#pragma GCC poison localtime /* localtime_r */
#pragma GCC poison atoi      /* number_parse_i64 */
#pragma GCC poison alloca    /* the arena */

/* rand() is refused by scripts/lint instead: parameters in OpenSSL's headers have this name. */

#endif
