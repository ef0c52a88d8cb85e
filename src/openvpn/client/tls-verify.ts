/** `tls-verify`: a command decides about each certificate of the server, from the authority down. Source: openvpn(8). */
import { splitLine } from '../config/syntax.ts'
import { formatName, parseCertificate } from '../x509/certificate.ts'
import { type ServerSubject, serverEnvironment } from './environment.ts'
import type { TunnelWorld } from './tunnel.ts'

/** Why a server is refused; undefined: it is not. */
export async function refusalByCommand(
  command: string,
  subject: ServerSubject,
  { run, log }: Pick<TunnelWorld, 'run' | 'log'>,
): Promise<string | undefined> {
  const words = splitLine(command)
  if (typeof words === 'string') return `tls-verify: ${words}`
  const names = subject.serverChain.map((der) => formatName(parseCertificate(der).subject))
  const environment = { ...serverEnvironment(subject), script_type: 'tls-verify' }
  for (const [depth, name] of [...names.entries()].reverse()) {
    const { status, output } = await run([...words, String(depth), name], environment)
    if (output !== '') log(`tls-verify: ${output}`)
    if (status !== 0) return `certificate "${name}": tls-verify refuses it`
  }
  return undefined
}
