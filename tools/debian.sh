# Sourced by the tools: what they share about the machine.

is_debian() {
  # shellcheck disable=SC1091 # the file is the machine's
  [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ])
}

is_root() {
  [ "$(id -u)" -eq 0 ]
}

may_install() {
  is_debian && is_root && command -v apt-get >/dev/null
}

# install_packages <package> ...: says so, installs, and leaves the output in a log.
install_packages() {
  local log=$root/.build/apt.log
  mkdir -p "$root/.build"
  printf 'Installing Debian packages: %s\n' "$*"
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get -o DPkg::Lock::Timeout=300 update \
    && apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    printf 'apt-get could not install %s: the whole output is in %s.\n' "$*" "$log" >&2
    return 1
  fi
}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}
