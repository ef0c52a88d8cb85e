/**
 * What a program gets from the package `ovpn`: servers and clients of its own, and a client of the driver. In Node, node.ts has its place.
 */

export * from './driver-client.ts'
export { ConnectError, type ConnectOptions, connect, EmbeddedConnection } from './embed/client.ts'
export { createServer, EmbeddedServer, type ServerOptions } from './embed/server.ts'
export type { Connection, Verdict } from './openvpn/client/client.ts'
export type { Answer, Ask, Question } from './openvpn/client/credentials.ts'
export type { PushChange } from './openvpn/config/client-settings.ts'
export { ConfigError } from './openvpn/config/parse.ts'
export type { StatusClient } from './openvpn/management/status.ts'
export type { PendingMethod } from './openvpn/proto/messages.ts'
export type {
  AuthDecision,
  AuthRequest,
  ClientIdentity,
  ClientSettings,
  ConnectedClient,
  Farewell,
  Reserve,
} from './openvpn/server/policy.ts'
