/**
 * Owns what the tests need of the system, and installs it where that is possible: on Debian, as root. Nothing of it is
 * needed to run the program itself, but for libssl3.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

interface Need {
  package: string
  /** A command that it brings, or a library by its file name. */
  command?: string
  library?: string
  why: string
}

const needs: Need[] = [
  { package: 'libssl3', library: 'libcrypto.so.3', why: 'the ciphers of the data path' },
  { package: 'libipsec-mb1', library: 'libIPSec_MB.so.1', why: 'the faster AES-GCM (x86-64 only)' },
  { package: 'iproute2', command: 'ip', why: 'network namespaces, veth pairs, addresses' },
  { package: 'iputils-ping', command: 'ping', why: 'packets through a tunnel, one at a time' },
  { package: 'iperf3', command: 'iperf3', why: 'TCP and UDP load through a tunnel' },
  { package: 'tcpdump', command: 'tcpdump', why: 'what is on the wire' },
  { package: 'tshark', command: 'tshark', why: 'another reader of control packets' },
  { package: 'ethtool', command: 'ethtool', why: 'offloads of veth pairs, switched on and off' },
  { package: 'openvpn', command: 'openvpn', why: 'the stock peer' },
  { package: 'qemu-system-x86', command: 'qemu-system-x86_64', why: "the kernel's own driver" },
  { package: 'busybox-static', command: 'busybox', why: "the virtual machine's first program" },
]

/** Installs what is missing, or says what cannot be: the tests that want it then skip and say so too. */
export function installPackages(): void {
  const missing = needs.filter((need) => !isPresent(need))
  if (missing.length === 0) return
  const list = missing.map((need) => `  ${need.package}: ${need.why}`).join('\n')
  const root = process.getuid?.() === 0
  if (!root || findCommand('apt-get') === undefined) {
    const why = root ? 'this is not Debian' : 'only root can install them'
    console.log(`Missing Debian packages (${why}); tests that need them skip:\n${list}\n`)
    return
  }
  console.log(`Installing missing Debian packages:\n${list}`)
  const names = missing.map((need) => need.package)
  // A package that this release or architecture has not must not keep the others away.
  if (!apt('update') || !apt('install', ...names)) for (const name of names) apt('install', name)
  for (const need of missing) {
    if (!isPresent(need)) console.log(`${need.package} could not be installed`)
  }
  console.log('')
}

function apt(command: 'update' | 'install', ...names: string[]): boolean {
  const args = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=120']
  if (command === 'install') args.push('--no-install-recommends')
  const { status } = spawnSync('apt-get', [...args, command, ...names], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    timeout: 300_000,
  })
  return status === 0
}

function isPresent(need: Need): boolean {
  if (need.library !== undefined) return hasLibrary(need.library)
  return need.command === undefined || findCommand(need.command) !== undefined
}

function findCommand(name: string): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

function hasLibrary(name: string): boolean {
  const roots = ['/usr/lib', '/lib', '/usr/lib64', '/usr/local/lib'].filter(existsSync)
  const folders = roots.flatMap((root) => [
    root,
    ...readdirSync(root)
      .filter((entry) => entry.endsWith('-linux-gnu'))
      .map((entry) => join(root, entry)),
  ])
  return folders.some((folder) => existsSync(join(folder, name)))
}
