/** Which DNS servers the system asks: through systemd-resolved where that runs, else in /etc/resolv.conf. */
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { DnsPlan } from '../openvpn/network.ts'
import { runScript } from './scripts.ts'

const RESOLV_CONF = '/etc/resolv.conf'
const RESOLVED = '/run/systemd/resolve'
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

/** Has the system ask the servers of `plan`. Rejects where that cannot be done; returns what takes it back. */
export async function applyDns(
  device: string,
  plan: DnsPlan,
  path = RESOLV_CONF,
): Promise<() => Promise<void>> {
  return existsSync(RESOLVED) && path === RESOLV_CONF
    ? applyToResolved(device, plan)
    : applyToFile(plan, path)
}

async function applyToResolved(device: string, plan: DnsPlan): Promise<() => Promise<void>> {
  const { servers, searchDomains, routeDomains } = plan
  // Without domains of their own the servers are asked for all names.
  const routes = routeDomains.length > 0 ? routeDomains.map((domain) => `~${domain}`) : ['~.']
  const domains = [...searchDomains, ...(servers.length > 0 ? routes : [])]
  if (servers.length > 0) await resolvectl('dns', device, ...servers)
  if (domains.length > 0) await resolvectl('domain', device, ...domains)
  return async () => {
    await resolvectl('revert', device).catch(() => {
      // The interface is gone, and its servers with it.
    })
  }
}

async function resolvectl(...args: string[]): Promise<void> {
  const { status, output } = await runScript(['resolvectl', ...args], { environment: {} })
  if (status !== 0) throw new Error(`resolvectl ${args.join(' ')}: ${output}`)
}

/** The file may be one that containers and others have mounted: it is written over, not replaced. */
async function applyToFile(plan: DnsPlan, path: string): Promise<() => Promise<void>> {
  const former = existsSync(path) ? readFileSync(path) : undefined
  const kept = former === undefined ? [] : keptLines(former.toString(), plan)
  const servers = plan.servers.length > 0 ? plan.servers : nameservers(path)
  const lines = [
    MARK,
    ...servers.slice(0, MAX_SERVERS).map((address) => `nameserver ${address}`),
    ...(plan.searchDomains.length > 0 ? [`search ${plan.searchDomains.join(' ')}`] : []),
    ...kept,
  ]
  const written = `${lines.join('\n')}\n`
  writeFileSync(path, written)
  const { mtimeMs } = statSync(path)
  return async () => {
    // Whoever has changed it meanwhile knows better.
    if (!existsSync(path) || statSync(path).mtimeMs !== mtimeMs) return
    if (readFileSync(path, 'utf8') !== written) return
    writeFileSync(path, former ?? '')
  }
}

function keptLines(text: string, plan: DnsPlan): string[] {
  const replaced =
    plan.searchDomains.length > 0 ? /^\s*(nameserver|search|domain)\b/ : /^\s*nameserver\b/
  return text
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.startsWith('#') && !replaced.test(line))
}
