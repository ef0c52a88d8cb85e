/**
 * Runs a command under the kernel's own `ovpn` driver: in a QEMU machine that sees this machine's
 * file tree (read-only below, changes kept in its memory) and has no network but what it makes itself, and where
 * wanted a cable to a namespace of this one's.
 *
 * Owns the QEMU process, its bounds and the results; the kernel is fetch.ts's, the guest's inside
 * initramfs.ts's.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { cacheFolder, fetchKernel, type KernelFiles, Unavailable } from './fetch.ts'
import { BUSYBOX, createInitramfs, createProbeInitramfs, GUEST_READY } from './initramfs.ts'

const QEMU = 'qemu-system-x86_64'
const CHECKOUT = resolve(import.meta.dirname, '../..')
const BUN = join(CHECKOUT, 'node_modules/.bin/bun')

/** The driver, what it links to, and its ciphers: in the guest nobody loads a module on demand. */
const MODULES = ['ovpn', 'tun', 'veth', 'dummy', 'gcm', 'ctr', 'aesni-intel', 'chacha20poly1305']

/** Of its end of a cable. */
const NETWORK_MODULES = ['virtio_net']

/**
 * Processors of the guest. Emulated ones run side by side, and now and then one meets an instruction that another is patching
 * (an `int3` in the middle of the kernel); so there is but one of those.
 */
const PROCESSORS: { readonly [accelerator in Accelerator]: number } = { kvm: 2, tcg: 1 }

/** Measured without hardware help on two cores: 6 s, and 30 s with both of them busy otherwise. */
const BOOT_TIMEOUT_MS = 90_000
/** An emulated machine may stand still or die before it has come up; nothing of the script has happened then. */
const BOOT_TRIES = 3
const SCRIPT_TIMEOUT_MS = 60_000
const PROBE_TIMEOUT_MS = 10_000
const CONSOLE_TAIL = 20_000

/** A cable: `eth0` in the guest, and outside a tap device of this name that is there already, in a named namespace. */
export interface GuestNetwork {
  netns: string
  tap: string
}

export interface GuestOptions {
  /** Working directory; the checkout unless told. */
  cwd?: string
  /** Kernel modules to load beside the driver's. */
  modules?: readonly string[]
  /** What the script may take, from its start. */
  timeoutMs?: number
  memoryMiB?: number
  network?: GuestNetwork
  /** Ends the machine, which then is a GuestError. */
  signal?: AbortSignal
}

export interface GuestResult {
  /** The script's exit status: 0, or of the first command that failed. */
  status: number
  stdout: string
  stderr: string
  /** What the script wrote to `$OVPN_OUT`, by path inside it. */
  files: ReadonlyMap<string, Uint8Array>
  /** The kernel's log: a test that provoked it looks for `WARNING:` and `BUG:` here. */
  dmesg: string
  kernelVersion: string
  accelerator: Accelerator
  /** From QEMU's start to the script's. */
  bootMs: number
  totalMs: number
}

type Accelerator = 'kvm' | 'tcg'

/** The machine did not come up or did not end in time; the message quotes its console. */
export class GuestError extends Error {
  override name = 'GuestError'
  readonly code: 'GUEST_TIMEOUT' | 'GUEST_DIED'

  constructor(code: 'GUEST_TIMEOUT' | 'GUEST_DIED', message: string) {
    super(message)
    this.code = code
  }
}

/** Why there can be no guest here, or undefined where there can; the first call may download. */
export async function whyNoKernel(): Promise<string | undefined> {
  try {
    await requireTools()
    await fetchKernel()
    return undefined
  } catch (error) {
    if (error instanceof Unavailable) return error.message
    throw error
  }
}

/**
 * Boots the kernel and runs `script` in it as root with `bash -e`. A status other than 0 is a result,
 * not an error. Throws `Unavailable` (see `whyNoKernel`) and `GuestError`.
 */
export async function runInKernel(
  script: string,
  options: GuestOptions = {},
): Promise<GuestResult> {
  await requireTools()
  const kernel = await fetchKernel()
  const accelerator = await bestAccelerator(kernel)
  const timeoutMs = options.timeoutMs ?? SCRIPT_TIMEOUT_MS
  const folder = await mkdtemp(join(tmpdir(), 'ovpn-guest-'))
  try {
    const out = join(folder, 'out')
    await mkdir(out)
    await writeFile(join(out, '.script'), `cd ${quote(options.cwd ?? CHECKOUT)}\n${script}\n`)
    const { network, signal, modules = [] } = options
    const initrd = join(folder, 'initrd')
    const needed = [...MODULES, ...(network === undefined ? [] : NETWORK_MODULES), ...modules]
    await writeFile(initrd, await createInitramfs(kernel, needed))
    const machine = await bootMachine({
      accelerator,
      kernel,
      initrd,
      memoryMiB: options.memoryMiB ?? 2048,
      append: `ovpn_seconds=${Math.ceil(timeoutMs / 1000) + 10}`,
      arguments: [
        ...share('root', '/', true),
        ...share('out', out, false),
        ...(network === undefined ? [] : cable(network)),
      ],
      ...(network !== undefined && { netns: network.netns }),
      ...(signal !== undefined && { signal }),
      bootTimeoutMs: BOOT_TIMEOUT_MS,
      timeoutMs,
    })
    const status = await readText(join(out, '.status'))
    const stdout = await readText(join(out, '.stdout'))
    const stderr = await readText(join(out, '.stderr'))
    if (status === '') {
      const stage = machine.bootMs === undefined ? 'while it came up' : 'during the script'
      const what = `${machine.timedOut ? 'took too long' : 'ended'} ${stage}`
      throw new GuestError(
        machine.timedOut ? 'GUEST_TIMEOUT' : 'GUEST_DIED',
        `guest ${what}\nstdout: ${tail(stdout)}\nstderr: ${tail(stderr)}\nconsole: ${tail(machine.console)}`,
      )
    }
    return {
      status: Number(status),
      stdout,
      stderr,
      files: await readFiles(out),
      dmesg: await readText(join(out, '.dmesg')),
      kernelVersion: kernel.version,
      accelerator,
      bootMs: machine.bootMs ?? Number.NaN,
      totalMs: machine.totalMs,
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** A program's result: `transcript` is what it printed, one JSON value per line. */
export interface ProgramResult extends GuestResult {
  transcript: unknown[]
}

/**
 * Runs a TypeScript file of this checkout with Bun in the guest. Its standard output is one JSON value
 * per line. Throws also when it ends with a status other than 0, quoting its standard error.
 *
 * @param file absolute, or relative to the checkout
 */
export async function runProgramInKernel(
  file: string,
  args: readonly string[] = [],
  options: GuestOptions = {},
): Promise<ProgramResult> {
  const command = [BUN, resolve(CHECKOUT, file), ...args].map(quote).join(' ')
  const result = await runInKernel(command, options)
  if (result.status !== 0) {
    const { status, stdout, stderr } = result
    throw new Error(
      `${file} ended with ${status}\nstdout: ${tail(stdout)}\nstderr: ${tail(stderr)}`,
    )
  }
  const lines = result.stdout.split('\n').filter((line) => line !== '')
  return { ...result, transcript: lines.map((line) => JSON.parse(line)) }
}

/** One argument for a POSIX shell. */
function quote(argument: string): string {
  return `'${argument.replaceAll("'", "'\\''")}'`
}

interface Machine {
  accelerator: Accelerator
  kernel: KernelFiles
  initrd: string
  memoryMiB: number
  append: string
  arguments: readonly string[]
  /** Where QEMU runs; here unless named. */
  netns?: string
  signal?: AbortSignal
  bootTimeoutMs: number
  /** From the script's start. */
  timeoutMs: number
}

interface MachineEnd {
  /** What came over the serial port, and QEMU's own words. */
  console: string
  timedOut: boolean
  /** Until the script started; undefined when it did not. */
  bootMs: number | undefined
  totalMs: number
}

/** Runs a machine, and another one in place of one that did not come up. */
async function bootMachine(machine: Machine): Promise<MachineEnd> {
  for (let tries = 1; ; tries++) {
    const end = await runMachine(machine)
    if (end.bootMs !== undefined || tries === BOOT_TRIES || machine.signal?.aborted) return end
    console.log(`the guest did not come up, once more; it said: ${tail(end.console)}`)
  }
}

/** Runs QEMU until it ends, which it is made to do when a limit is over. */
async function runMachine(machine: Machine): Promise<MachineEnd> {
  const args = [
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-serial', 'stdio'],
    ...['-accel', machine.accelerator, '-cpu', 'max', '-m', `${machine.memoryMiB}`],
    ...['-smp', `${PROCESSORS[machine.accelerator]}`],
    ...['-kernel', machine.kernel.vmlinuz, '-initrd', machine.initrd],
    ...['-append', `console=ttyS0 quiet panic=-1 ${machine.append}`],
    ...machine.arguments,
  ]
  const started = performance.now()
  const elapsed = () => Math.round(performance.now() - started)
  const [command, ...words] =
    machine.netns === undefined
      ? [QEMU, ...args]
      : ['ip', 'netns', 'exec', machine.netns, QEMU, ...args]
  const qemu = spawn(command!, words, { stdio: ['ignore', 'pipe', 'pipe'] })
  let console = ''
  let bootMs: number | undefined
  let timedOut = false
  const expire = (): void => {
    timedOut = true
    qemu.kill('SIGKILL')
  }
  let timer = setTimeout(expire, machine.bootTimeoutMs)
  const abort = () => qemu.kill('SIGKILL')
  machine.signal?.addEventListener('abort', abort)
  const gather = (text: string): void => {
    console = (console + text).slice(-4 * CONSOLE_TAIL)
    // QEMU would wait for a debugger.
    if (console.includes('KVM internal error')) qemu.kill('SIGKILL')
    if (bootMs === undefined && console.includes(GUEST_READY)) {
      bootMs = elapsed()
      clearTimeout(timer)
      timer = setTimeout(expire, machine.timeoutMs)
    }
  }
  qemu.stdout.setEncoding('utf8').on('data', gather)
  qemu.stderr.setEncoding('utf8').on('data', gather)
  try {
    await ended(qemu)
  } finally {
    clearTimeout(timer)
    machine.signal?.removeEventListener('abort', abort)
  }
  return { console, timedOut, bootMs, totalMs: elapsed() }
}

function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', () => resolve())
  })
}

function cable({ tap }: GuestNetwork): string[] {
  const end = `tap,id=cable,ifname=${tap},script=no,downscript=no`
  return ['-netdev', end, '-device', 'virtio-net-pci,netdev=cable,romfile=']
}

/** One 9p export. Files of several of this machine's file systems may share numbers, hence `remap`. */
function share(tag: string, path: string, readonly: boolean): string[] {
  const access = `readonly=${readonly ? 'on' : 'off'},multidevs=remap`
  return ['-virtfs', `local,mount_tag=${tag},path=${path},security_model=none,${access}`]
}

/**
 * KVM where a guest has come up with it since this machine's last boot, TCG otherwise: an openable
 * /dev/kvm may still be one that runs no modern kernel.
 */
async function bestAccelerator(kernel: KernelFiles): Promise<Accelerator> {
  if (!(await readable('/dev/kvm'))) return 'tcg'
  const bootId = (await readText('/proc/sys/kernel/random/boot_id')).trim()
  const memory = join(cacheFolder(), 'accelerator')
  const [knownFor, known] = (await readText(memory)).split(' ')
  if (knownFor === bootId && (known === 'kvm' || known === 'tcg')) return known
  const initrd = join(await mkdtemp(join(tmpdir(), 'ovpn-probe-')), 'initrd')
  try {
    await writeFile(initrd, await createProbeInitramfs())
    const { bootMs } = await runMachine({
      accelerator: 'kvm',
      kernel,
      initrd,
      memoryMiB: 512,
      append: '',
      arguments: [],
      bootTimeoutMs: PROBE_TIMEOUT_MS,
      timeoutMs: PROBE_TIMEOUT_MS,
    })
    const accelerator = bootMs === undefined ? 'tcg' : 'kvm'
    await writeFile(memory, `${bootId} ${accelerator}`)
    return accelerator
  } finally {
    await rm(dirname(initrd), { recursive: true, force: true })
  }
}

async function requireTools(): Promise<void> {
  const folders = (process.env.PATH ?? '').split(':')
  for (const tool of [QEMU, 'dpkg-deb']) {
    const found = await Promise.all(folders.map((folder) => readable(join(folder, tool))))
    if (!found.includes(true)) throw new Unavailable(`${tool} is not installed`)
  }
  // A dynamically linked one would find no library in the initramfs.
  const busybox = await readFile(BUSYBOX).catch(() => undefined)
  if (busybox === undefined) throw new Unavailable('busybox-static is not installed')
  if (busybox.includes('/lib64/ld-linux-x86-64.so.2')) {
    throw new Unavailable('busybox is not the statically linked one (busybox-static)')
  }
}

/** The folder's files but those of the protocol, by relative path. */
async function readFiles(folder: string): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>()
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    const relative = path.slice(folder.length + 1)
    if (entry.isFile() && !relative.startsWith('.')) files.set(relative, await readFile(path))
  }
  return files
}

async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

async function readable(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}

function tail(text: string): string {
  return text.slice(-CONSOLE_TAIL)
}
