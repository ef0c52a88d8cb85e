/**
 * The guest's first file system: busybox, kernel modules in loading order, and the script that mounts
 * this machine's file tree and runs the command in it.
 *
 * Owns the archive format, module dependencies and the guest's side of the protocol with vm.ts, which
 * is files in the folder mounted as `out`:
 *
 *     .script    in   run by bash; vm.ts writes it
 *     .stdout    out
 *     .stderr    out
 *     .status    out  exit status, decimal
 *     .dmesg     out  the kernel's log
 *     others     out  the script's own, written to $OVPN_OUT
 *
 * and `GUEST_READY` on the console.
 */
import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import type { KernelFiles } from './fetch.ts'

const run = promisify(execFile)

/** Needed before the file tree is there. */
const BOOT_MODULES = ['9pnet_virtio', '9p', 'overlay']

/** The statically linked one of this machine: it goes into the guest, and unpacks modules here. */
export const BUSYBOX = '/bin/busybox'

/** The guest's `$OVPN_OUT`. */
const OUT = '/run/ovpn-out'

/** What the guest prints to its console when it has come up. */
export const GUEST_READY = 'ovpn guest: ready'

const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r name; do insmod "/modules/$name.ko" || echo "cannot load $name"; done < /modules/order

p9=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "$p9,ro,cache=loose" root /lower
for share in /sys/class/bdi/9p*; do echo 4096 > $share/read_ahead_kb; done # Bun starts in 1.4 s, not 2.5
mount -t tmpfs -o mode=755 upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new
mount -t proc proc /new/proc
mount -t sysfs sysfs /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t tmpfs -o mode=755 run /new/run
mkdir /new${OUT}
mount -t 9p -o "$p9" out /new${OUT} || poweroff -f
ip link set lo up

cd /new${OUT}
(sleep "$ovpn_seconds"; poweroff -f) & # nobody outside may be left to end the machine
echo '${GUEST_READY}'
chroot /new /usr/bin/env -i HOME=/root OVPN_OUT=${OUT} \\
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
  /bin/bash -e ${OUT}/.script < /dev/null > .stdout 2> .stderr
status=$?
dmesg > .dmesg
echo $status > .status
poweroff -f
`

const PROBE = `#!/bin/busybox sh
/bin/busybox echo "${GUEST_READY}"
/bin/busybox poweroff -f
`

/** Builds the archive that boots `kernel` with `modules` loaded, and what they depend on. */
export async function createInitramfs(
  kernel: KernelFiles,
  modules: readonly string[],
): Promise<Uint8Array> {
  const loaded = await collectModules(kernel, [...BOOT_MODULES, ...modules])
  const archive = await skeleton(INIT)
  archive.directory('modules')
  archive.file('modules/order', 0o644, Buffer.from(`${[...loaded.keys()].join('\n')}\n`))
  for (const [name, bytes] of loaded) archive.file(`modules/${name}.ko`, 0o644, bytes)
  return archive.end()
}

/** Builds the archive of a guest that prints `GUEST_READY` and powers off. */
export async function createProbeInitramfs(): Promise<Uint8Array> {
  return (await skeleton(PROBE)).end()
}

async function skeleton(init: string): Promise<Archive> {
  const archive = new Archive()
  for (const name of ['bin', 'dev', 'lower', 'new', 'proc', 'sys', 'upper']) archive.directory(name)
  archive.file('bin/busybox', 0o755, await readFile(BUSYBOX))
  archive.file('init', 0o755, Buffer.from(init))
  return archive
}

/** Modules by name in loading order, decompressed; built-in ones are left out. */
async function collectModules(
  kernel: KernelFiles,
  names: readonly string[],
): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, string>()
  for (const path of await readdir(kernel.modules, { recursive: true })) {
    if (path.endsWith('.ko.xz')) files.set(moduleName(path), join(kernel.modules, path))
  }
  const builtin = await readFile(join(kernel.modules, 'modules.builtin'), 'utf8')
  const builtins = new Set(builtin.trim().split('\n').map(moduleName))
  const loaded = new Map<string, Uint8Array>()
  const load = async (name: string): Promise<void> => {
    if (loaded.has(name) || builtins.has(name)) return
    const file = files.get(name)
    if (file === undefined) throw new Error(`Linux ${kernel.version} has no module ${name}`)
    const { stdout } = await run(BUSYBOX, ['xz', '-dc', file], {
      encoding: 'buffer',
      maxBuffer: 1 << 26,
    })
    for (const dependency of dependencies(stdout)) await load(dependency)
    loaded.set(name, stdout)
  }
  for (const name of names) await load(moduleName(name))
  return loaded
}

/** Reads `depends=` of a module's `.modinfo` section: NUL-ended `key=value` strings. */
function dependencies(module: Buffer): string[] {
  const start = module.indexOf('\0depends=')
  if (start < 0) return []
  const value = module.toString('latin1', start + 9, module.indexOf(0, start + 1))
  return value === '' ? [] : value.split(',').map(moduleName)
}

/** The kernel's name of a module: as its file, with `_` for `-`. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.xz)?$/, '')
    .replaceAll('-', '_')
}

/** A cpio archive in the "newc" form. Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst. */
class Archive {
  readonly #parts: Uint8Array[] = []
  #inode = 0

  directory(name: string): void {
    this.#entry(name, 0o040755, new Uint8Array())
  }

  file(name: string, mode: number, data: Uint8Array): void {
    this.#entry(name, 0o100000 | mode, data)
  }

  end(): Uint8Array {
    this.#entry('TRAILER!!!', 0, new Uint8Array())
    return Buffer.concat(this.#parts)
  }

  /** Header 110 (magic 6, thirteen numbers of 8 hex digits) | name, NUL | data; both padded to 4. */
  #entry(name: string, mode: number, data: Uint8Array): void {
    const links = 1
    const numbers = [
      ++this.#inode,
      mode,
      0,
      0,
      links,
      0,
      data.length,
      0,
      0,
      0,
      0,
      name.length + 1,
      0,
    ]
    const digits = numbers.map((number) => number.toString(16).padStart(8, '0')).join('')
    const head = Buffer.from(`070701${digits}${name}\0`)
    this.#parts.push(head, padding(head.length), data, padding(data.length))
  }
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3)
}
