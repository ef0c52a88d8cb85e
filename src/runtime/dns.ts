/**
 * Which DNS servers the system asks: through systemd-resolved where that runs, else in /etc/resolv.conf.
 *
 * What the file held before lies in /run while it is changed, so that a client that was killed leaves nothing that the next one cannot
 * put right.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { DnsPlan } from '../openvpn/network.ts'
import { runScript } from './scripts.ts'

const RESOLV_CONF = '/etc/resolv.conf'
const RESOLVED = '/run/systemd/resolve'
/** Where it listens. Source: systemd-resolved.service(8). */
const STUBS = new Set(['127.0.0.53', '127.0.0.54'])
const NSSWITCH = '/etc/nsswitch.conf'
const KEPT_IN = '/run'
/** And the process that changed it, and which file that is: others may have one of their own (`ip netns exec`) and the same /run. */
const KEPT_AS = /^ovpn-resolv\.conf\.(\d+)\.(\d+-\d+)$/
/** The resolver of the C library reads no more. */
const MAX_SERVERS = 3
const MARK = '# by ovpn; the former content comes back when the tunnel ends'

/** Addresses that the system asks at present. */
export function nameservers(path = RESOLV_CONF): string[] {
  try {
    const lines = readFileSync(path, 'utf8').matchAll(/^\s*nameserver\s+(\S+)/gm)
    return [...lines].map(([, address]) => address!)
  } catch {
    return []
  }
}

/**
 * Has the system ask the servers of `plan`. Rejects where that cannot be done; returns what takes it back.
 *
 * @param log hears what cannot be followed
 * @param folder where the file's content is kept meanwhile
 */
export async function applyDns(
  device: string,
  plan: DnsPlan,
  log: (text: string) => void,
  path = RESOLV_CONF,
  folder = path === RESOLV_CONF ? KEPT_IN : undefined,
): Promise<() => Promise<void>> {
  return path === RESOLV_CONF && asksResolved(path)
    ? applyToResolved(device, plan)
    : applyToFile(plan, log, path, folder)
}

/** Puts back what a client that was killed has left changed. */
export function repairDns(path = RESOLV_CONF, folder = KEPT_IN): void {
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const [, pid, file] = KEPT_AS.exec(name) ?? []
    if (pid === undefined || isRunning(Number(pid)) || file !== identityOf(path)) continue
    const kept = join(folder, name)
    if (existsSync(path) && readFileSync(path, 'utf8').startsWith(MARK)) {
      writeFileSync(path, readFileSync(kept))
    }
    rmSync(kept, { force: true })
  }
}

/** Whether the system's questions go to systemd-resolved: where the file is another's, it would be told in vain. */
function asksResolved(path: string): boolean {
  if (!existsSync(RESOLVED)) return false
  try {
    if (realpathSync(path).startsWith(`${RESOLVED}/`)) return true
  } catch {
    // There is no file.
  }
  return (
    nameservers(path).some((address) => STUBS.has(address)) || /^hosts:.*\bresolve\b/m.test(nss())
  )
}

function nss(): string {
  try {
    return readFileSync(NSSWITCH, 'utf8')
  } catch {
    return ''
  }
}

function identityOf(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false })
  return found && `${found.dev}-${found.ino}`
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

async function applyToResolved(device: string, plan: DnsPlan): Promise<() => Promise<void>> {
  const { servers, searchDomains, routeDomains, tls, dnssec } = plan
  // Without domains of their own the servers are asked for all names.
  const routes = routeDomains.length > 0 ? routeDomains.map((domain) => `~${domain}`) : ['~.']
  const domains = [...searchDomains, ...(servers.length > 0 ? routes : [])]
  const named = tls?.name === undefined ? servers : servers.map((one) => `${one}#${tls.name}`)
  const undo = async () => {
    await resolvectl('revert', device).catch(() => {
      // The interface is gone, and its servers with it.
    })
  }
  try {
    if (servers.length > 0) await resolvectl('dns', device, ...named)
    if (domains.length > 0) await resolvectl('domain', device, ...domains)
    if (tls !== undefined) await resolvectl('dnsovertls', device, 'yes')
    if (dnssec !== undefined) {
      await resolvectl('dnssec', device, dnssec === 'optional' ? 'allow-downgrade' : dnssec)
    }
  } catch (error) {
    // Half of it would send questions where nobody wants them.
    await undo()
    throw error
  }
  return undo
}

async function resolvectl(...args: string[]): Promise<void> {
  const { status, output } = await runScript(['resolvectl', ...args], { environment: {} })
  if (status === 0) return
  const remedy = /denied|authentication/i.test(output)
    ? " (it listens to root, and to users that polkit names: leave 'user' out, or allow org.freedesktop.resolve1.*)"
    : ''
  throw new Error(`resolvectl ${args.join(' ')}: ${output}${remedy}`)
}

/** The file may be one that containers and others have mounted: it is written over, not replaced. */
async function applyToFile(
  plan: DnsPlan,
  log: (text: string) => void,
  path: string,
  folder: string | undefined,
): Promise<() => Promise<void>> {
  const former = existsSync(path) ? readFileSync(path) : undefined
  const kept = former === undefined ? [] : keptLines(former.toString(), plan)
  const wanted = plan.servers.filter(isPlain)
  for (const problem of problemsOf(plan, path)) log(`DNS: ${problem}`)
  if (plan.tls !== undefined || (wanted.length === 0 && plan.servers.length > 0))
    return async () => {}
  const servers = wanted.length > 0 ? wanted : nameservers(path)
  const lines = [
    MARK,
    ...servers.slice(0, MAX_SERVERS).map((address) => `nameserver ${address}`),
    ...(plan.searchDomains.length > 0 ? [`search ${plan.searchDomains.join(' ')}`] : []),
    ...kept,
  ]
  const written = `${lines.join('\n')}\n`
  const keep =
    folder === undefined
      ? undefined
      : join(folder, `ovpn-resolv.conf.${process.pid}.${identityOf(path)}`)
  if (former === undefined) mkdirSync(dirname(path), { recursive: true })
  else if (keep !== undefined) writeFileSync(keep, former)
  writeFileSync(path, written)
  return async () => {
    // Whoever has changed it meanwhile knows better.
    if (existsSync(path) && readFileSync(path, 'utf8') === written) {
      if (former === undefined) rmSync(path)
      else writeFileSync(path, former)
    }
    if (keep !== undefined) rmSync(keep, { force: true })
  }
}

/** Whether the resolver of the C library can ask there: it knows no ports. */
const isPlain = (server: string) => !/^\[|^[\d.]+:/.test(server)

/** What such a file cannot say. */
function* problemsOf({ servers, routeDomains, tls }: DnsPlan, path: string): Generator<string> {
  if (tls !== undefined) {
    yield `${path} knows no DNS over TLS: the system's own servers stay; systemd-resolved can do it`
    return
  }
  for (const server of servers.filter((one) => !isPlain(one))) {
    yield `${path} knows no ports: ${server} is left out`
  }
  if (routeDomains.length > 0) {
    yield `${path} cannot tell domains apart: all names are asked of the tunnel's servers, not only those in ${routeDomains.join(', ')}`
  }
}

function keptLines(text: string, plan: DnsPlan): string[] {
  const replaced =
    plan.searchDomains.length > 0 ? /^\s*(nameserver|search|domain)\b/ : /^\s*nameserver\b/
  return text
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.startsWith('#') && !replaced.test(line))
}
