/* Loaded into a program by LD_PRELOAD: answers for the host NAMES_HOST what the file NAMES_ANSWER says: NXDOMAIN,
   AGAIN, an address, or "SLOW" and an address, which then takes five seconds. Other hosts are looked up as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
  const char *host = getenv("NAMES_HOST"), *path = getenv("NAMES_ANSWER");
  if (!node || !host || !path || strcmp(node, host) != 0) return real(node, service, hints, found);
  char answer[64] = "";
  FILE *file = fopen(path, "re");
  if (!file) return EAI_FAIL;
  char *line = fgets(answer, sizeof answer, file);
  fclose(file);
  if (!line || strcmp(answer, "AGAIN") == 0) return EAI_AGAIN;
  if (strcmp(answer, "NXDOMAIN") == 0) return EAI_NONAME;
  if (strncmp(answer, "SLOW ", 5) == 0) {
    sleep(5);
    line += 5;
  }
  return real(line, service, hints, found);
}
