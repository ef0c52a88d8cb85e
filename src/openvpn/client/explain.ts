/**
 * Why a connection did not come about, or ended, in a sentence, and what the user can try. Texts are for people; what decides is the kind
 * of ending and its code.
 */
import type { Ending } from './attempt.ts'

/** What was tried. */
export interface Tried {
  readonly protocol: 'udp' | 'tcp'
  readonly port: number
  /** How control packets are wrapped. */
  readonly wrap: 'none' | 'tls-auth' | 'tls-crypt' | 'tls-crypt-v2'
  /** Kind of the proxy, if there is one. */
  readonly proxy: 'HTTP' | 'SOCKS' | undefined
  /** This machine's clock. */
  readonly date: Date
}

/** Empty: the user has ended it. */
export function reasonOf(ending: Ending): string {
  switch (ending.kind) {
    case 'refused': {
      const { failure } = ending
      if (failure.reason === 'challenge') return 'the server asks for more'
      const text = failure.text === '' ? 'it gives no reason' : failure.text
      return `the server refuses this client: ${text}`
    }
    case 'ordered': {
      const { halt, order } = ending
      const text = order.text === '' ? '' : `: ${order.text}`
      return `the server wants this client to ${halt ? 'end' : 'connect anew'}${text}`
    }
    case 'closed':
      return ''
    default:
      return ending.text
  }
}

/**
 * What a `down` script is told as `signal`: OpenVPN's words. `own`: why this end has let go, if it has.
 *
 * Source: openvpn(8), `signal`; what OpenVPN's sources give register_signal().
 */
export function signalOf(ending: Ending, own: string, exitsOnSilence: boolean): string {
  switch (ending.kind) {
    case 'closed':
      return own
    case 'ordered':
      return ending.halt ? 'server-pushed-halt' : 'server-pushed-connection-reset'
    case 'refused':
      return 'auth-failure'
    case 'lost':
      if (ending.code === 'expired') return exitsOnSilence ? 'ping-exit' : 'ping-restart'
      if (ending.code === 'remote-exit') return ending.code
      return ending.code?.startsWith('transport-') ? 'connection-reset' : 'tls-error'
    default:
      return 'tls-error'
  }
}

/** What to try; undefined where there is nothing to say. */
export function hintFor(ending: Ending, tried: Tried): string | undefined {
  switch (ending.kind) {
    case 'unreachable':
      return ending.code === undefined ? silenceHint(tried) : SYSTEM_HINTS[ending.code]
    case 'failed':
      return failureHint(ending.code, ending.text, tried)
    case 'refused': {
      const { failure } = ending
      if (failure.reason !== 'denied') return undefined
      return /cipher/i.test(failure.text) ? CIPHER_HINT : LOGIN_HINT
    }
    case 'unsuitable':
      return /cipher/.test(ending.text) ? CIPHER_HINT : undefined
    default:
      return undefined
  }
}

const LOGIN_HINT = 'check the user name and the password, and whether the account may still connect'
const CIPHER_HINT =
  "name a cipher that the server has in the profile's data-ciphers, or have its administrator add one of AES-256-GCM, AES-128-GCM, CHACHA20-POLY1305"

/** Of what the system says about names and connections. */
const SYSTEM_HINTS: { readonly [code: string]: string } = {
  ENOTFOUND: "there is no such name: check the 'remote' of the profile",
  EAI_NONAME: "there is no such name: check the 'remote' of the profile",
  EAI_AGAIN: 'the DNS server does not answer: is this machine online?',
  ECONNREFUSED: 'nobody listens there: is the server running, and are port and protocol right?',
  ECONNRESET: 'whoever listens there does not want us: are port and protocol right?',
  ETIMEDOUT: 'nothing came back: does a firewall stop it, or is the address wrong?',
  ENETUNREACH: 'there is no route: is this machine online, with this version of IP?',
  EHOSTUNREACH: 'there is no way to that machine: is it on, and is the address right?',
  EADDRNOTAVAIL: "the address of 'local' is not this machine's",
  EADDRINUSE: "the port of 'lport' is taken by another program: 'nobind' takes any",
  EPERM: 'a firewall of this machine stops it, or it takes root',
  PROXY_AUTH: 'check the user name and the password for the proxy',
  PROXY_REFUSED: 'ask whoever runs the proxy whether it lets through to this server and port',
}

/** A server that does not know the wrap's key says nothing at all, to nobody: that looks like one that is not there. */
function silenceHint({ protocol, port, wrap, proxy }: Tried): string {
  const way = proxy === undefined ? 'a firewall on the way' : `the ${proxy} proxy`
  const there = `is the server running, and does ${way} let ${protocol.toUpperCase()} port ${port} through?`
  if (wrap === 'none') {
    return `${there} A server with tls-auth or tls-crypt is silent, too, to a client without`
  }
  return `${there} A server is also silent where the key of ${wrap} is not its own, or this machine's clock is wrong: compare the profile`
}

function failureHint(code: string | undefined, text: string, tried: Tried): string | undefined {
  if (code === 'certificate') {
    const clock = `this machine's clock says ${tried.date.toISOString()}`
    if (/expired/.test(text)) return `the server needs a new certificate, unless ${clock} wrongly`
    if (/not valid before/.test(text)) return clock
    if (/revoked/.test(text))
      return 'this server is not to be trusted any more: ask for a new profile'
    if (/usage/.test(text)) {
      return "it may be another client's that plays the server; if the server's is of an older make, leave out remote-cert-tls and name the server with verify-x509-name"
    }
    if (/fingerprint|verify-hash|verify-x509-name|name/.test(text)) {
      return 'this is another server than the profile means, or it has a new certificate: ask for a new profile'
    }
    return "the profile's 'ca' is not that of this server: ask for a new profile; if it was right before, somebody may be in between"
  }
  if (code === 'tls') {
    if (/certificate/.test(text)) {
      return "the server does not take this client's certificate: it is expired, revoked, or of another authority; ask for a new profile"
    }
    if (/version of TLS/.test(text)) return 'change tls-version-min at the end that is behind'
    return undefined
  }
  if (code === 'timeout') {
    return 'the server answers, and then no more: it may not like our certificate, or large packets are lost on the way: try tun-mtu or max-packet-size with less'
  }
  return undefined
}
