/** Ports by name (`https`), as the system's table of services has them. The table is read anew where a name is used: that is rare. */
import { decodeText, type Files, type Setting, type Settings } from './parse.ts'

const SERVICES = '/etc/services'

/**
 * The number of a port. Of a name that there is not, `settings` has the problem, and the number is 0.
 *
 * @param at where it is written; of a number that need not be known
 */
export function portNumber(
  { settings, files }: { readonly settings: Settings; readonly files: Files },
  port: number | string,
  protocol: 'udp' | 'tcp',
  at: Pick<Setting, 'name' | 'place'> | undefined,
): number {
  if (typeof port === 'number') return port
  const found = portsOf(files, port)
  const number = found.get(protocol)
  if (number !== undefined) return number
  const [other] = found
  const only = other === undefined ? '' : `; ${other[0]} has it as ${other[1]}`
  const message = `${at?.name}: ${SERVICES} has no ${protocol} port named '${port}'${only}`
  settings.problem('argument', at?.place, message)
  return 0
}

/** By protocol. Source: services(5). */
function portsOf(files: Files, name: string): Map<string, number> {
  const ports = new Map<string, number>()
  for (const line of readServices(files).split('\n')) {
    const [official, port = '', ...aliases] = line.replace(/#.*/, '').trim().split(/\s+/)
    const [, number, protocol] = /^(\d{1,5})\/(\w+)$/.exec(port) ?? []
    if (protocol === undefined || ports.has(protocol)) continue
    if (official === name || aliases.includes(name)) ports.set(protocol, Number(number))
  }
  return ports
}

function readServices(files: Files): string {
  try {
    return decodeText(files.read(SERVICES))
  } catch {
    // A system without the table knows no names.
    return ''
  }
}
