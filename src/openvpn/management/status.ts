/**
 * The server's status as text, in the three forms of `status-version`, as OpenVPN 2.7 writes them: for the `status` file and for
 * the management interface. Source: openvpn(8), "status-version"; management-notes.txt, "status".
 */
import type { Endpoint } from '../transport.ts'

export interface StatusClient {
  readonly id: number
  readonly peerId: number
  readonly commonName: string
  /** Empty where the client gave none. */
  readonly username: string
  readonly protocol: 'udp' | 'tcp'
  readonly remote: Endpoint
  readonly v4?: string
  readonly v6?: string
  /** Networks behind the client: `10.2.0.0/16`. */
  readonly routes: readonly string[]
  readonly bytesReceived: number
  readonly bytesSent: number
  readonly connectedSince: Date
  readonly lastSeen: Date
  readonly cipher: string
}

export interface ServerStatus {
  readonly title: string
  readonly now: Date
  readonly clients: readonly StatusClient[]
}

export type StatusVersion = 1 | 2 | 3

const CLIENT_COLUMNS = [
  'Common Name',
  'Real Address',
  'Virtual Address',
  'Virtual IPv6 Address',
  'Bytes Received',
  'Bytes Sent',
  'Connected Since',
  'Connected Since (time_t)',
  'Username',
  'Client ID',
  'Peer ID',
  'Data Channel Cipher',
]
const ROUTE_COLUMNS = [
  'Virtual Address',
  'Common Name',
  'Real Address',
  'Last Ref',
  'Last Ref (time_t)',
]

/** Lines of the status, the last one `END`. */
export function statusLines(status: ServerStatus, version: StatusVersion): string[] {
  return version === 1 ? firstVersion(status) : laterVersion(status, version === 2 ? ',' : '\t')
}

function firstVersion({ now, clients }: ServerStatus): string[] {
  return [
    'OpenVPN CLIENT LIST',
    `Updated,${timeText(now)}`,
    'Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since',
    ...clients.map((client) =>
      [
        client.commonName,
        realAddress(client),
        client.bytesReceived,
        client.bytesSent,
        timeText(client.connectedSince),
      ].join(','),
    ),
    'ROUTING TABLE',
    'Virtual Address,Common Name,Real Address,Last Ref',
    ...clients.flatMap((client) =>
      networksOf(client).map((network) =>
        [network, client.commonName, realAddress(client), timeText(client.lastSeen)].join(','),
      ),
    ),
    'GLOBAL STATS',
    'Max bcast/mcast queue length,0',
    'END',
  ]
}

function laterVersion({ title, now, clients }: ServerStatus, separator: string): string[] {
  const line = (...fields: (string | number)[]) => fields.join(separator)
  return [
    line('TITLE', title),
    line('TIME', timeText(now), unix(now)),
    line('HEADER', 'CLIENT_LIST', ...CLIENT_COLUMNS),
    ...clients.map((client) =>
      line(
        'CLIENT_LIST',
        client.commonName,
        realAddress(client),
        client.v4 ?? '',
        client.v6 ?? '',
        client.bytesReceived,
        client.bytesSent,
        timeText(client.connectedSince),
        unix(client.connectedSince),
        client.username === '' ? 'UNDEF' : client.username,
        client.id,
        client.peerId,
        client.cipher,
      ),
    ),
    line('HEADER', 'ROUTING_TABLE', ...ROUTE_COLUMNS),
    ...clients.flatMap((client) =>
      networksOf(client).map((network) => {
        const { commonName, lastSeen } = client
        const seen = [timeText(lastSeen), unix(lastSeen)]
        return line('ROUTING_TABLE', network, commonName, realAddress(client), ...seen)
      }),
    ),
    line('GLOBAL_STATS', 'Max bcast/mcast queue length', 0),
    line('GLOBAL_STATS', 'dco_enabled', 1),
    'END',
  ]
}

/** `udp4:192.0.2.1:1194`, `tcp6:2001:db8::1:443`, as OpenVPN 2.7 names the ends of connections. */
export function realAddress({
  protocol,
  remote,
}: Pick<StatusClient, 'protocol' | 'remote'>): string {
  const family = remote.address.includes(':') ? 6 : 4
  return `${protocol}${family}:${remote.address}:${remote.port}`
}

function networksOf({ v4, v6, routes }: StatusClient): string[] {
  return [...(v4 === undefined ? [] : [v4]), ...(v6 === undefined ? [] : [v6]), ...routes]
}

const unix = (date: Date): number => Math.floor(date.getTime() / 1000)

/** `2026-11-23 06:58:42`, in local time. */
export function timeText(date: Date): string {
  const two = (number: number) => String(number).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}
