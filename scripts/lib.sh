# Shared by the scripts here; sourced, never run. Who builds, what is missing, how it is installed.
# shellcheck shell=bash

if [ "$(uname -s)" != Linux ]; then
    echo "dataplane runs on Linux only: use a Linux VM, Docker or WSL2" >&2
    exit 3
fi

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$(basename "$0")
# ip, ethtool and bpftool are where an ordinary user's PATH may not lead.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '%s: %s\n' "$script" "$*"; }
warn() { printf '%s: %s\n' "$script" "$*" >&2; }
fail() { # exit-code message
    warn "$2"
    exit "$1"
}

is_root() { [ "$(id -u)" = 0 ]; }
can_install() { is_root && command -v apt-get >/dev/null; }

# The user who builds: whoever called sudo, else whoever runs this.
owner=$(id -un)
if is_root && [ -n "${SUDO_USER-}" ] && [ "$SUDO_USER" != root ]; then
    owner=$SUDO_USER
fi
owner_home=$(getent passwd "$owner" | cut -d: -f6)
owner_path=${CARGO_HOME:-$owner_home/.cargo}/bin:$PATH

# Runs a command as the user who builds.
as_owner() {
    if [ "$(id -un)" = "$owner" ]; then
        PATH=$owner_path "$@"
    else
        runuser -u "$owner" -- env HOME="$owner_home" USER="$owner" PATH="$owner_path" CARGO_TARGET_DIR="$target" "$@"
    fi
}

# Where builds go: in the checkout, or in the builder's cache when the checkout is not theirs to write.
target=${CARGO_TARGET_DIR:-$repository/target}
find_target() {
    if ! as_owner mkdir -p "$target" 2>/dev/null || ! as_owner test -w "$target"; then
        target=$owner_home/.cache/dataplane/target
        say "$owner may not write into $repository; building in $target"
        as_owner mkdir -p "$target"
    fi
    export CARGO_TARGET_DIR=$target
}

# Which of these are missing? Each is COMMAND:PACKAGE, or FILE:PACKAGE for what is no command.
missing_packages() {
    local need
    for need in "$@"; do
        case $need in
            /*) [ -e "${need%%:*}" ] ;;
            *) command -v "${need%%:*}" >/dev/null ;;
        esac || printf '%s\n' "${need##*:}"
    done | sort -u
}

apt_updated=false
apt_install() {
    if ! $apt_updated; then
        apt-get update -qq || warn "apt-get update failed; trying with the lists that are there"
        apt_updated=true
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null </dev/null
}

# Sees to it that commands and files are there: install_missing COMMAND:PACKAGE...
install_missing() {
    local packages
    mapfile -t packages < <(missing_packages "$@")
    if [ ${#packages[@]} = 0 ]; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        fail 3 "install what Debian calls ${packages[*]}, and run this again"
    elif ! is_root; then
        fail 3 "something is missing: sudo apt-get install ${packages[*]}"
    fi
    say "installing ${packages[*]}"
    apt_install "${packages[@]}" || fail 3 "apt could not install ${packages[*]}"
}

# The same for what tests can do without: what needs it is skipped then.
install_wanted() {
    local packages package
    mapfile -t packages < <(missing_packages "$@")
    for package in "${packages[@]}"; do
        if ! can_install; then
            warn "without $package some tests are skipped"
        else
            say "installing $package"
            apt_install "$package" 2>/dev/null || warn "apt has no $package: some tests are skipped"
        fi
    done
}

# What building the programs needs beside Rust: a C compiler, for zstd and to link.
program_needs=(cc:gcc /usr/include/stdio.h:libc6-dev)
# What building everything needs: tests and benchmarks bring libxdp, which is compiled from source (clang to zlib).
build_needs=("${program_needs[@]}" clang:clang llvm-strip:llvm m4:m4 make:make pkg-config:pkg-config
    /usr/include/libelf.h:libelf-dev /usr/include/pcap/pcap.h:libpcap-dev /usr/include/zlib.h:zlib1g-dev)

# Is there a Rust toolchain? If not, the one command that gets it.
need_rust() {
    local pinned
    pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$repository/rust-toolchain.toml")
    if (cd "$repository" && as_owner cargo --version >/dev/null 2>&1); then
        return
    fi
    if (cd "$repository" && as_owner rustup --version >/dev/null 2>&1); then
        fail 3 "Rust $pinned is missing: rustup toolchain install $pinned --component rustfmt,clippy"
    elif apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        fail 3 "Rust is missing: sudo apt install rustup && rustup toolchain install $pinned --component rustfmt,clippy"
    else
        fail 3 "Rust is missing: install rustup (as the Rust project's install page says), as $owner; it fetches $pinned by itself"
    fi
}

major_version() { # version text
    sed -n 's/^[^0-9]*\([0-9]*:\)\{0,1\}\([0-9]*\)\..*/\2/p' <<<"$1"
}

have_suricata() {
    command -v suricata >/dev/null && [ "$(major_version "$(suricata -V 2>/dev/null)")" -ge 7 ]
}

# Debian 12 has Suricata 7 in its backports only: name them beside the sources that the machine has, from
# the same place and with the same key.
add_backports() {
    local codename entry uri file key
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && [ "$ID" = debian ] && printf '%s' "${VERSION_CODENAME-}")
    [ -n "$codename" ] || return 1
    entry=$(apt-get indextargets --format '$(BASE_URI) $(REPO_URI) $(SOURCESENTRY)' 'Created-By: Packages' |
        grep -m1 "/dists/$codename/ ") || return 1
    read -r _ uri file <<<"$entry"
    file=${file%:*}
    case $file in
        *.sources) key=$(sed -n 's/^[Ss]igned-[Bb]y: *\(\/.*\)/\1/p' "$file" | head -n1) ;;
        *) key=$(sed -n 's/.*signed-by=\([^] ]*\).*/\1/p' "$file" | head -n1) ;;
    esac
    say "adding $codename-backports to the package sources (/etc/apt/sources.list.d/dataplane-backports.sources)"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$uri" "$codename"
        if [ -n "$key" ]; then
            printf 'Signed-By: %s\n' "$key"
        fi
    } >/etc/apt/sources.list.d/dataplane-backports.sources
    apt_updated=false
}

# Runs a command during which packages start no services: Suricata's would listen on the machine's own
# interfaces. A policy-rc.d that is there already stays as it is; ours goes, also after a signal.
without_services() {
    (
        policy=/usr/sbin/policy-rc.d
        own=$policy.dataplane.$$
        # It is ours if it is the same file.
        take_back() {
            [ ! "$own" -ef $policy ] || rm -f $policy
            rm -f "$own"
        }
        trap take_back EXIT
        for signal in INT TERM HUP; do
            # shellcheck disable=SC2064
            trap "take_back; trap - EXIT $signal; kill -$signal \$BASHPID" $signal
        done
        printf '#!/bin/sh\nexit 101\n' >"$own"
        chmod +x "$own"
        ln "$own" $policy 2>/dev/null || true
        "$@"
    )
}

# Installs a package from backports where the release has none, or one older than this major version.
install_recent() { # package major
    local candidate release=()
    if ! $apt_updated; then
        apt-get update -qq || true
        apt_updated=true
    fi
    # apt says "(none)" of a package that it knows by name only.
    candidate=$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([^(]\)/\1/p')
    if [ -z "$candidate" ] || [ "$(major_version "$candidate")" -lt "$2" ]; then
        if ! grep -rqs -- "-backports" /etc/apt/sources.list /etc/apt/sources.list.d; then
            add_backports || return 1
        fi
        # shellcheck source=/dev/null
        release=(-t "$(. /etc/os-release && printf '%s' "$VERSION_CODENAME")-backports")
    fi
    apt_install "${release[@]}" "$1"
}

# Suricata 7 or newer, if it can be had; answers whether it is there.
install_suricata() {
    if have_suricata; then
        return 0
    fi
    if ! can_install; then
        return 1
    fi
    say "installing suricata"
    if [ "$(dpkg-query -W -f '${db:Status-Status}' suricata 2>/dev/null)" = installed ]; then
        # An older one is upgraded, and stays the service that it was.
        install_recent suricata 7 || warn "apt could not install suricata"
    else
        without_services install_recent suricata 7 || warn "apt could not install suricata"
        if command -v systemctl >/dev/null; then
            systemctl disable --quiet suricata 2>/dev/null || true
        fi
    fi
    have_suricata
}

# QEMU that has the igb card (8.0), if it can be had; answers whether it is there.
have_qemu() {
    command -v qemu-system-x86_64 >/dev/null &&
        [ "$(major_version "$(qemu-system-x86_64 --version 2>/dev/null)")" -ge 8 ]
}
install_qemu() {
    if have_qemu; then
        return 0
    fi
    if ! can_install; then
        return 1
    fi
    say "installing qemu-system-x86"
    install_recent qemu-system-x86 8 || warn "apt could not install qemu-system-x86"
    have_qemu
}

# The programs of an initramfs: one file that needs no library. Answers whether they are there.
have_static_busybox() {
    local file
    for file in /bin/busybox /usr/bin/busybox; do
        if [ -e "$file" ]; then
            ! grep -q /lib64/ld-linux "$file"
            return
        fi
    done
    return 1
}
install_static_busybox() {
    if have_static_busybox; then
        return 0
    fi
    if ! can_install; then
        return 1
    fi
    say "installing busybox-static"
    apt_install busybox-static || warn "apt could not install busybox-static"
    have_static_busybox
}

# Builds the tests and lists their executables: "PACKAGE TARGET FOLDER EXECUTABLE" a line.
test_executables() { # cargo's arguments...
    local messages
    messages=$(cd "$repository" && as_owner cargo test --no-run --locked --message-format=json "$@") || return
    python3 -c '
import json, os, sys

for line in sys.stdin:
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("executable") and message["profile"]["test"]:
        folder = os.path.dirname(message["manifest_path"])
        print(os.path.basename(folder), message["target"]["name"], folder, message["executable"])
' <<<"$messages"
}
