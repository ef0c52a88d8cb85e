/**
 * A server from its configuration file, with all that the file asks for beside it: scripts, tokens, the management interface, files of
 * status and addresses. What the parts do is src/openvpn/server's.
 */
import { isIP } from 'node:net'
import type { DriverClient } from '../driver/client.ts'
import type { Ask } from '../openvpn/client/credentials.ts'
import type { Listener, ServerConfig } from '../openvpn/config/server-config.ts'
import { commonNameOf, createIdentity } from '../openvpn/identity.ts'
import { flagOf, LEVEL, type Log } from '../openvpn/log.ts'
import { Management } from '../openvpn/management/management.ts'
import { statusLines } from '../openvpn/management/status.ts'
import { parseOption } from '../openvpn/proto/push.ts'
import { serverDoor, serverOptions, serverSettings } from '../openvpn/server/configured.ts'
import { ConfiguredPolicy } from '../openvpn/server/configured-policy.ts'
import { KeyPassword, managedServer, tellingPolicy } from '../openvpn/server/managed.ts'
import { ManagementAuthority } from '../openvpn/server/management-authority.ts'
import type { ConnectedClient, Farewell, ServerPolicy } from '../openvpn/server/policy.ts'
import type { ServerChange } from '../openvpn/server/server.ts'
import { Tokens } from '../openvpn/server/tokens.ts'
import type { SocketOptions } from '../platform/datagrams.ts'
import { realClock } from './clock.ts'
import { fileWatch } from './files.ts'
import { type KeptFile, openKeptFile } from './kept-file.ts'
import { KEY_REFUSED, type KeyQuestion, withKeyPassword } from './key-password.ts'
import { connectManagement, type ManagementPlace, serveManagement } from './management-socket.ts'
import { runScript } from './scripts.ts'
import { type ListenAddress, openServer, type RunningServer } from './server.ts'
import { unlessStopped } from './stopped.ts'
import { createTemporaryFile } from './temporary-file.ts'
import { groupId, userId } from './users.ts'
import { VERSION } from './version.ts'

export type ServerSignal = 'SIGHUP' | 'SIGTERM' | 'SIGUSR1' | 'SIGUSR2'
/** What a server or a client ends by, or begins anew. */
export type EndSignal = 'SIGHUP' | 'SIGINT' | 'SIGTERM' | 'SIGUSR1'

export interface ConfiguredOptions {
  /** The user, for the password of the key where who manages is not asked. */
  readonly ask: Ask
  /** Asked last, and told of all. */
  readonly policy: ServerPolicy
  readonly workers?: number | undefined
  /** Its files, opened while that was possible. */
  readonly kept: KeptFiles
  /** `verb` and `mute` may be changed at the management interface. */
  readonly log: Log
  readonly failed: (error: unknown) => void
  /** Somebody asks for it at the management interface. */
  readonly signal: (name: ServerSignal) => void
  /** Ends the waiting for who manages, and for the password of the key. */
  readonly stopping?: AbortSignal
}

export interface KeptFiles {
  readonly status: KeptFile | undefined
  readonly pool: KeptFile | undefined
}

/** Opens what a server writes while it runs. @throws Error for what cannot be opened */
export function openKeptFiles({ status, poolPersist }: ServerConfig): KeptFiles {
  const writes = poolPersist !== undefined && poolPersist.interval > 0
  return {
    status: status && openKeptFile(status.path),
    pool: writes ? openKeptFile(poolPersist.path) : undefined,
  }
}

export interface ConfiguredServer extends RunningServer {
  /**
   * Has another configuration take effect, with clients staying connected.
   *
   * @returns names of what can only change with a restart; then nothing has changed
   * @throws TlsError and the like for keys that cannot be used; nothing has changed
   */
  reload(config: ServerConfig): string[]
  /** Lines for the log (SIGUSR2). */
  statusText(): Promise<string[]>
  /** `why`: for scripts; SIGTERM unless said. */
  close(why?: EndSignal): Promise<void>
}

const TOKEN_KEY_BYTES = 32
/** Of this process, in seconds, for scripts. */
const STARTED = Math.floor((Date.now() - performance.now()) / 1000)

/** Rejects with what is wrong with keys and certificates, or what the system refuses; with Stopped where it was called off. */
export async function openConfiguredServer(
  client: DriverClient,
  config: ServerConfig,
  options: ConfiguredOptions,
): Promise<ConfiguredServer> {
  const unixSeconds = () => Math.floor(realClock.date().getTime() / 1000)
  const { workers, failed, kept, stopping } = options
  /** Of the private key, where it was asked for. */
  let passphrase: string | undefined
  const { poolPersist } = config
  let running: RunningServer | undefined
  const keyPassword = new KeyPassword()
  const management = config.management && createManagement()
  const endLog = options.log.also((text, level) => management?.log(text, flagOf(level)))
  const log = options.log.write
  const authority =
    management !== undefined && config.management?.clientAuth === true
      ? new ManagementAuthority(management)
      : undefined
  const tokens = createTokens(config, unixSeconds)
  const partsOf = (config: ServerConfig): ServerChange => ({
    settings: { ...serverSettings(config), ...(workers !== undefined && { workers }) },
    policy: new ConfiguredPolicy({
      config,
      program: followed(options.policy, management, tokens),
      tokens,
      management: authority,
      environment: () => serverEnvironment(config, running),
      run: (command, environment) => runScript(command, { environment }),
      read: fileWatch.read,
      date: realClock.date,
      temporaryFile: (content) => createTemporaryFile(config.tmpDir, content),
      log,
    }),
    tls: createIdentity(config, {
      role: 'server',
      required: config.verifyClientCert === 'require',
      requested: config.verifyClientCert !== 'none',
      passphrase,
      unixSeconds,
      files: fileWatch,
    }),
    door: serverDoor(config, unixSeconds),
    commonNameOf: (peer) => commonNameOf(config, peer),
    optionsFor: serverOptions(config),
  })

  function createManagement(): Management {
    const { password, logCache, hold } = config.management!
    return new Management(
      managedServer({
        title: `ovpn ${VERSION}`,
        pid: process.pid,
        server: () => running?.server,
        authority: () => authority,
        date: realClock.date,
        signal: options.signal,
        questions: keyPassword,
        log: options.log,
        statusVersion: config.statusVersion,
      }),
      {
        ...(typeof password === 'object' && { password: password.password }),
        logCache,
        hold,
        now: realClock.date,
        every,
      },
    )
  }

  async function askForKey(): Promise<string> {
    if (management !== undefined && config.management?.queryPasswords === true) {
      return keyPassword.ask(management)
    }
    return (await options.ask({ kind: 'passphrase', what: 'Private Key' })).text
  }

  const door =
    management &&
    (await openManagement(management, config.management!, () => {
      if (config.management?.signal === true) options.signal('SIGUSR1')
    }))
  const own = {
    ...(config.ifconfig !== undefined && { localV4: config.ifconfig.local }),
    ...(config.ifconfigIpv6 !== undefined && { localV6: config.ifconfigIpv6.local.address }),
  }
  try {
    await unlessStopped(stopping, Promise.resolve(management?.released()))
    management?.state({ name: 'CONNECTING' })
    const question: KeyQuestion = {
      ask: () => unlessStopped(stopping, askForKey()),
      refused: () => management?.notify(KEY_REFUSED),
      again: () => false, // `auth-retry` is a client's
    }
    const parts = await withKeyPassword(config.keyPassword, question, (password) => {
      passphrase = password
      return partsOf(config)
    })
    management?.state({ name: 'ASSIGN_IP', ...own })
    const persisted = poolPersist && fileWatch.read(poolPersist.path)
    running = await openServer(
      client,
      {
        ...parts,
        listen: config.listeners.map(addressOf),
        sockets: socketOptions(config),
        poolPersisted: persisted && new TextDecoder().decode(persisted),
        log,
      },
      failed,
    )
  } catch (error) {
    endLog()
    door?.close()
    throw error
  }
  const { server, pool } = running
  let present = config
  const statusText = async () => {
    const clients = await server.status()
    return statusLines(
      { title: `ovpn ${VERSION}`, now: realClock.date(), clients },
      config.statusVersion,
    )
  }
  const stops: (() => void)[] = []
  const keep = (what: string, ms: number, write: () => Promise<void> | void) => {
    const once = async () => {
      try {
        await write()
      } catch (error) {
        log(`${what}: ${(error as Error).message}`, LEVEL.error)
      }
    }
    void once()
    stops.push(every(ms, once))
  }
  let signal: string | undefined
  const script = async (command: string | undefined, type: string, ...args: string[]) => {
    if (command === undefined) return true
    const environment = {
      ...Object.fromEntries(config.environment),
      ...serverEnvironment(config, running),
      script_type: type,
      ...(signal !== undefined && { signal }),
    }
    const { status, output } = await runScript([...(parseOption(command) ?? []), ...args], {
      environment,
    })
    const said = output === '' ? '' : `: ${output}`
    if (status !== 0) log(`${type}: ${command} ended with ${status}${said}`)
    return status === 0
  }
  const { data } = running
  const addresses = [config.ifconfig?.local ?? '', config.ifconfig?.netmask ?? '']
  const device = [data.name, String(config.tunMtu), '0', ...addresses, 'init']
  const beginnings: [type: string, command: string | undefined, parameters: string[]][] = [
    ['up', config.up, device],
    ['route-up', config.routeUp, []],
  ]
  for (const [type, command, parameters] of beginnings) {
    if (await script(command, type, ...parameters)) continue
    await running.close()
    endLog()
    door?.close()
    throw new Error(`the script of '${type}' has failed`)
  }
  const { status } = config
  if (status !== undefined) {
    keep('status', status.interval, async () => {
      kept.status?.write(`${(await statusText()).join('\n')}\n`)
    })
  }
  const persist = () => {
    if (poolPersist !== undefined && poolPersist.interval > 0) {
      kept.pool?.write(pool.persisted())
    }
  }
  if (poolPersist !== undefined && poolPersist.interval > 0) {
    keep('ifconfig-pool-persist', poolPersist.interval, persist)
  }
  for (const text of config.echo) management?.echo(text)
  management?.state({ name: 'CONNECTED', detail: 'SUCCESS', ...own })
  return {
    ...running,
    statusText,
    reload(next) {
      const fixed = FIXED.filter(
        (name) => JSON.stringify(next[name]) !== JSON.stringify(present[name]),
      )
      if (fixed.length > 0) return fixed
      server.change(partsOf(next))
      present = next
      return []
    },
    async close(why = 'SIGTERM') {
      for (const stop of stops) stop()
      management?.state({ name: 'EXITING', detail: 'exit' })
      await script(config.routePreDown, 'route-pre-down')
      signal = why.toLowerCase()
      if (config.downPre) await script(config.down, 'down', ...device)
      await running?.close()
      if (!config.downPre) await script(config.down, 'down', ...device)
      try {
        persist()
      } catch (error) {
        log(`ifconfig-pool-persist: ${(error as Error).message}`, LEVEL.error)
      }
      endLog()
      door?.close()
    },
  }
}

/** What sockets, the interface and this process are made with. */
const FIXED = [
  'dev',
  'listeners',
  'multihome',
  'ifconfig',
  'ifconfigIpv6',
  'pool',
  'poolIpv6',
  'poolPersist',
  'tunMtu',
  'mark',
  'bindDev',
  'sndbuf',
  'rcvbuf',
  'routes',
  'routesIpv6',
  'routeTable',
  'txqueuelen',
  'ifconfigNoexec',
  'management',
  'status',
  'statusVersion',
  'authGenToken',
  'user',
  'group',
  'up',
  'down',
] as const satisfies readonly (keyof ServerConfig)[]

function every(ms: number, call: () => void): () => void {
  const timer = setInterval(call, ms)
  return () => clearInterval(timer)
}

function createTokens(config: ServerConfig, now: () => number): Tokens | undefined {
  const { authGenToken } = config
  if (authGenToken === undefined) return undefined
  const { lifetime, renewal, externalAuth, secret } = authGenToken
  return new Tokens({
    rules: {
      key: secret ?? realClock.random(TOKEN_KEY_BYTES),
      lifetime: lifetime / 1000,
      renewal: renewal / 1000,
    },
    externalAuth,
    now,
    random: realClock.random,
  })
}

/** The program's policy, and what else is told of clients. */
function followed(
  policy: ServerPolicy,
  management: Management | undefined,
  tokens: Tokens | undefined,
): ServerPolicy {
  const telling = management && tellingPolicy(management)
  return {
    ...policy,
    connected(client: ConnectedClient) {
      telling?.connected?.(client)
      policy.connected?.(client)
    },
    disconnected(client: ConnectedClient, farewell: Farewell) {
      tokens?.forget(client.id)
      telling?.disconnected?.(client, farewell)
      policy.disconnected?.(client, farewell)
    },
  }
}

/** The management interface that a configuration asks for; `ended` is called when one that was served has gone. */
export function openManagement(
  management: Management,
  { at, client, clientUser, clientGroup }: NonNullable<ServerConfig['management']>,
  ended: () => void,
): Promise<{ close(): void }> {
  const ids = {
    ...(clientUser !== undefined && { uid: userId(clientUser) }),
    ...(clientGroup !== undefined && { gid: groupId(clientGroup) }),
  }
  const place: ManagementPlace =
    at.kind === 'unix' ? { path: at.path, ...ids } : { address: at.address, port: at.port }
  return client
    ? connectManagement(management, place, ended)
    : serveManagement(management, place, ended)
}

/** What scripts are told of the server. */
function serverEnvironment(
  config: ServerConfig,
  running: RunningServer | undefined,
): Record<string, string> {
  const { ifconfig, ifconfigIpv6, listeners, verb, tunMtu } = config
  return {
    ...(running !== undefined && { dev: running.data.name }),
    dev_type: 'tun',
    script_context: 'init',
    redirect_gateway: '0',
    config: config.file,
    verb: String(verb),
    tun_mtu: String(tunMtu),
    daemon: '0',
    daemon_log_redirect: config.log === undefined ? '0' : '1',
    daemon_pid: String(process.pid),
    daemon_start_time: String(STARTED),
    ...(ifconfig !== undefined && {
      ifconfig_local: ifconfig.local,
      ifconfig_netmask: ifconfig.netmask,
    }),
    ...(ifconfigIpv6 !== undefined && {
      ifconfig_ipv6_local: ifconfigIpv6.local.address,
      ifconfig_ipv6_netbits: String(ifconfigIpv6.local.prefix),
    }),
    ...Object.fromEntries(
      listeners.flatMap(({ port, protocol }, i) => [
        [`local_port_${i + 1}`, String(port)],
        [`remote_port_${i + 1}`, String(port)],
        [`proto_${i + 1}`, protocol],
      ]),
    ),
  }
}

function socketOptions(config: ServerConfig): SocketOptions & { multihome: boolean } {
  const { multihome, mark, bindDev, rcvbuf, sndbuf } = config
  return {
    multihome,
    ...(mark !== undefined && { mark }),
    ...(bindDev !== undefined && { device: bindDev }),
    ...(rcvbuf !== undefined && { rcvbuf }),
    ...(sndbuf !== undefined && { sndbuf }),
  }
}

/** Names are for clients: a server listens at addresses. */
function addressOf({ protocol, family, host, port, ipv6only }: Listener): ListenAddress {
  const any = family === 4 ? '0.0.0.0' : '::'
  const address = host === undefined || host === '*' ? any : host
  if (isIP(address) === 0) throw new Error(`local: expected an address, not '${host}'`)
  return { protocol, address, port, v6only: ipv6only || family === 6 }
}
