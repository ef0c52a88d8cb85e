/**
 * Who may come and what they get, as a configuration says: files of `client-config-dir`, scripts, tokens, the management interface. Programs and
 * files are reached through what is passed in. All that is asked must agree; the first that refuses decides.
 *
 *     refuses...     tls-crypt-v2-verify, tls-verify --> the embedding program
 *     authenticate   token --> auth-user-pass-verify --> client-auth of the management interface --> the embedding program
 *     admit          client-config-dir --> client-connect --> the embedding program
 */
import {
  type ClientSettings as FileSettings,
  readClientSettings,
} from '../config/client-settings.ts'
import { maskToPrefix } from '../config/values.ts'
import type { AuthFailure } from '../proto/messages.ts'
import {
  clean,
  connectedEnvironment,
  type Environment,
  farewellEnvironment,
  identityEnvironment,
} from './environment.ts'
import type {
  AuthDecision,
  AuthRequest,
  ClientIdentity,
  ClientSettings,
  ConnectedClient,
  Farewell,
  Network,
  Reserve,
  ServerPolicy,
} from './policy.ts'
import { type ProgramParts, Programs } from './programs.ts'
import type { Tokens } from './tokens.ts'

export interface PolicyParts extends ProgramParts {
  /** Asked last; and told of all that happens. */
  readonly program: ServerPolicy
  readonly tokens?: Tokens | undefined
  /** Asked after scripts; undefined without `management-client-auth`. */
  readonly management?: ManagementAuthority | undefined
  /** The content of a file; undefined where there is none. */
  read(path: string): Uint8Array | undefined
}

/** Somebody at the management interface who decides. */
export interface ManagementAuthority {
  decide(request: AuthRequest, environment: Environment): Promise<AuthDecision>
}

export class ConfiguredPolicy implements ServerPolicy {
  readonly #parts: PolicyParts
  readonly #programs: Programs
  /** Runs of `learn-address`, in order. */
  #learning: Promise<void> = Promise.resolve()

  constructor(parts: PolicyParts) {
    this.#parts = parts
    this.#programs = new Programs(parts)
  }

  get decidesAll(): boolean {
    const { management, program } = this.#parts
    return management !== undefined || program.decidesAll === true
  }

  async refusesKey(metadata: Uint8Array): Promise<string | undefined> {
    const refused = await this.#programs.refusesKey(metadata)
    return refused ?? this.#parts.program.refusesKey?.(metadata)
  }

  async refusesCertificates(
    client: ClientIdentity,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const refused = await this.#programs.refusesCertificates(client)
    return refused ?? this.#parts.program.refusesCertificates?.(client, signal)
  }

  async authenticate(request: AuthRequest): Promise<AuthDecision> {
    const { config, tokens, management, program } = this.#parts
    const { username, password } = request
    const checked = tokens?.check(request)
    if (checked?.state === 'refused') return checked.decision
    const environment: Environment = {
      ...identityEnvironment(request.client),
      ...checked?.environment,
    }
    let decision: AuthDecision = { allow: true }
    const byToken = checked?.state === 'accepted' && config.authGenToken?.externalAuth !== true
    if (!byToken) {
      if (config.authUserPassVerify !== undefined && (username !== '' || password !== '')) {
        decision = await this.#programs.verifyPassword(request, environment)
        if (!decision.allow) return decision
      }
      if (management !== undefined) {
        const told = { ...environment, ...(password !== '' && { password: clean(password) }) }
        decision = both(decision, await management.decide(request, told))
        if (!decision.allow) return decision
      }
      if (program.authenticate !== undefined) {
        decision = both(decision, await program.authenticate(request))
        if (!decision.allow) return decision
      }
    }
    const issued = tokens?.issue(request, checked)
    return issued === undefined ? decision : { ...decision, token: issued }
  }

  async admit(
    client: ClientIdentity,
    signal: AbortSignal,
    reserve: Reserve,
  ): Promise<AuthDecision> {
    const { config, program } = this.#parts
    let settings: ClientSettings = {}
    const file = this.#clientFile(client.commonName)
    if (file === 'exclusive') {
      const why = `there is no file for ${client.commonName} in ${config.clientConfigDir}`
      return refused('this client is not known to the server', why)
    }
    if (file !== undefined) {
      if (file.disable) return refused('this client is disabled', 'disable')
      settings = settingsOf(file)
    }
    if (config.clientConnect !== undefined) {
      const text = await this.#programs.clientConnect(
        config.clientConnect,
        client,
        reserve(settings),
        signal,
      )
      if (text === undefined) return refused('', 'client-connect refuses it')
      const written = this.#parse(text, 'client-connect')
      if (written.disable) return refused('this client is disabled', 'disable, of client-connect')
      settings = merge(settings, settingsOf(written))
    }
    const asked = await program.admit?.(client, signal, (more) => reserve(merge(settings, more)))
    if (asked?.allow === false) return asked
    return { allow: true, settings: merge(settings, asked?.settings ?? {}) }
  }

  connected(client: ConnectedClient): void {
    this.#learn('add', client)
    this.#parts.program.connected?.(client)
  }

  rekeyed(client: ConnectedClient, keyId: number): void {
    this.#parts.program.rekeyed?.(client, keyId)
  }

  floated(client: ConnectedClient): void {
    this.#learn('update', client)
    this.#parts.program.floated?.(client)
  }

  disconnected(client: ConnectedClient, farewell: Farewell): void {
    const { config, program } = this.#parts
    this.#learn('delete', client)
    if (config.clientDisconnect !== undefined) {
      const environment = { ...connectedEnvironment(client), ...farewellEnvironment(farewell) }
      void this.#programs.run('client-disconnect', config.clientDisconnect, [], environment)
    }
    program.disconnected?.(client, farewell)
  }

  #clientFile(commonName: string): FileSettings | 'exclusive' | undefined {
    const { clientConfigDir, ccdExclusive } = this.#parts.config
    if (clientConfigDir === undefined) return undefined
    const names = isFileName(commonName) ? [commonName, 'DEFAULT'] : ['DEFAULT']
    for (const name of names) {
      const path = `${clientConfigDir}/${name}`
      const content = this.#parts.read(path)
      if (content === undefined || (ccdExclusive && name === 'DEFAULT')) continue
      return this.#parse(new TextDecoder().decode(content), path)
    }
    return ccdExclusive ? 'exclusive' : undefined
  }

  /** @throws ConfigError: who has no settings that make sense is not let in */
  #parse(text: string, file: string): FileSettings {
    const read = (path: string) => {
      const content = this.#parts.read(path)
      if (content === undefined) throw new Error(`there is no file ${path}`)
      return content
    }
    return readClientSettings({ file, text }, { read })
  }

  #learn(action: 'add' | 'update' | 'delete', client: ConnectedClient): void {
    const { learnAddress } = this.#parts.config
    if (learnAddress === undefined) return
    const networks = client.routes.map(({ network, prefix }) => `${network}/${prefix}`)
    const addresses = [client.v4, client.v6, ...networks].filter((one) => one !== undefined)
    for (const address of addresses) {
      const args = action === 'delete' ? [action, address] : [action, address, client.commonName]
      this.#learning = this.#learning.then(async () => {
        await this.#programs.run('learn-address', learnAddress, args, connectedEnvironment(client))
      })
    }
  }
}

/** A name from a certificate or a client must not lead out of the folder. */
function isFileName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\\\p{Cc}]/u.test(name)
}

function refused(text: string, why: string): AuthDecision & { allow: false } {
  const failure: AuthFailure = { reason: 'denied', text }
  return { allow: false, failure, why }
}

function both(first: AuthDecision, second: AuthDecision): AuthDecision {
  if (!first.allow || !second.allow) return second
  const settings = merge(first.settings ?? {}, second.settings ?? {})
  return { ...first, ...second, settings }
}

/** Both; of single values the second's. */
export function merge(first: ClientSettings, second: ClientSettings): ClientSettings {
  return {
    ...first,
    ...second,
    routes: [...(first.routes ?? []), ...(second.routes ?? [])],
    pushChanges: [...(first.pushChanges ?? []), ...(second.pushChanges ?? [])],
  }
}

/** A client's file, in the form that the server wants. */
export function settingsOf(file: FileSettings): ClientSettings {
  const routes: Network[] = [
    ...file.iroutes.map(({ network, netmask }) => ({
      network,
      prefix: maskToPrefix(netmask) ?? 32,
    })),
    ...file.iroutesIpv6.map(({ address, prefix }) => ({ network: address, prefix })),
  ]
  return {
    ...(file.ifconfig !== undefined && { v4: file.ifconfig.local }),
    ...(file.ifconfigIpv6 !== undefined && { v6: file.ifconfigIpv6.address }),
    routes,
    pushChanges: file.pushChanges,
    ...(file.overrideUsername !== undefined && { username: file.overrideUsername }),
    ...(file.dataCiphersFallback !== undefined && {
      dataCiphersFallback: file.dataCiphersFallback,
    }),
    ...(file.ping !== undefined && { ping: file.ping }),
    ...(file.pingRestart !== undefined && { pingRestart: file.pingRestart }),
    ...(file.inactive !== undefined && { inactive: file.inactive }),
    ...(file.sessionTimeout !== undefined && { sessionTimeout: file.sessionTimeout }),
  }
}
