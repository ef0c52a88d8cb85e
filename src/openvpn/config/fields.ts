/** Reading settings: what stands in files and blocks, paths from where they start, commands that may be run. */
import type { DirectiveName } from './directives.ts'
import { decodeText, type Files, load, resolvePath, type Setting, type Settings } from './parse.ts'
import { splitLine } from './syntax.ts'
import type { Loaded, Place } from './values.ts'

/** A name and a password from a file of two lines. */
export interface Credentials {
  readonly username: string
  /** Undefined: to be asked for. */
  readonly password: string | undefined
}

/** Reads what is asked of settings, and files with them. */
export class Fields {
  readonly settings: Settings
  readonly files: Files

  constructor(settings: Settings, files: Files) {
    this.settings = settings
    this.files = files
  }

  place(name: DirectiveName): Place | undefined {
    return this.settings.last(name)?.place
  }

  /** The file or block of the last `name`. `marker`: what its text must have, and what it is then. */
  loaded(name: FileDirective, marker?: Marker): Loaded | undefined {
    const setting = this.settings.last(name)
    if (setting === undefined) return undefined
    const loaded = load(this.settings, this.files, setting, setting.args.file)
    if (loaded === undefined || marker === undefined) return loaded
    const text = decodeText(loaded.content)
    if (!marker.pattern.test(text)) {
      const message = `${name}: ${loaded.from} is no ${marker.what}`
      this.settings.problem('file', setting.place, message)
    }
    return loaded
  }

  /** The key in the file or block of the last `name`, as `parseKey` reads it. */
  key<K>(name: KeyDirective, parseKey: (text: string) => K): K | undefined {
    const loaded = this.loaded(name)
    if (loaded === undefined) return undefined
    try {
      return parseKey(decodeText(loaded.content))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.settings.problem('file', this.place(name), `${name}: ${loaded.from}: ${reason}`)
      return undefined
    }
  }

  /** The path in the argument of the last `name`, from the folder it stands in. */
  path(name: PathDirective): string | undefined {
    const setting = this.settings.last(name)
    if (setting === undefined) return undefined
    const { file, directory } = setting.args as { file?: string; directory?: string }
    return resolvePath(setting.folder, file ?? directory ?? '')
  }

  /** The same, of a folder that has to be there. */
  folder(name: PathDirective): string | undefined {
    const path = this.path(name)
    if (path === undefined) return undefined
    if (this.#isMissing(path)) {
      this.settings.problem('file', this.place(name), `${name}: there is no folder '${path}'`)
    }
    return path
  }

  /** A command, where scripts may be run. */
  command(name: CommandDirective): string | undefined {
    const setting = this.settings.last(name)
    if (setting === undefined) return undefined
    const level = this.settings.args('script-security')?.level ?? 1
    if (level < 2) {
      const message = `'${name}' runs a program, and that needs a line 'script-security 2'`
      this.settings.problem('conflict', setting.place, message)
    }
    const { command } = setting.args
    const [program] = splitLine(command)
    if (program?.startsWith('/') && this.#isMissing(program)) {
      // What distributions of OpenVPN bring for it.
      const remedy = /resolv|dns/.test(program)
        ? "; DNS is set without one here: remove the lines 'up' and 'down' that name it"
        : ''
      const message = `${name}: there is no program '${program}'${remedy}`
      this.settings.problem('file', setting.place, message)
    }
    return command
  }

  #isMissing(path: string): boolean {
    try {
      this.files.read(path)
      return false
    } catch (error) {
      const { code } = error as { code?: unknown }
      return code === 'ENOENT' || code === 'ENOTDIR'
    }
  }
}

/** Name and password in the file, or the block, of a setting. */
export function loadCredentials(
  settings: Settings,
  files: Files,
  setting: Setting,
  path: string,
): Credentials | undefined {
  const loaded = load(settings, files, setting, path)
  if (loaded === undefined) return undefined
  const [username = '', password] = decodeText(loaded.content).split(/\r?\n/)
  if (username === '') {
    const message = `${setting.name}: the first line of ${loaded.from} is the user name, and it is empty`
    settings.problem('file', setting.place, message)
  }
  return { username, password: password === '' ? undefined : password }
}

type FileDirective = 'ca' | 'cert' | 'key' | 'extra-certs' | 'pkcs12' | 'crl-verify' | KeyDirective
type KeyDirective = 'tls-auth' | 'tls-crypt' | 'tls-crypt-v2' | 'auth-gen-token-secret'
type PathDirective =
  | 'capath'
  | 'log'
  | 'log-append'
  | 'writepid'
  | 'status'
  | 'tmp-dir'
  | 'client-config-dir'
  | 'ifconfig-pool-persist'
type CommandDirective =
  | 'up'
  | 'down'
  | 'route-up'
  | 'route-pre-down'
  | 'ipchange'
  | 'tls-verify'
  | 'client-connect'
  | 'client-disconnect'
  | 'client-crresponse'
  | 'learn-address'
  | 'auth-user-pass-verify'
  | 'tls-crypt-v2-verify'

/** What the text of a file must have, and what it is then. */
export interface Marker {
  readonly pattern: RegExp
  readonly what: string
}

export function firstLine({ content }: Loaded): string {
  return decodeText(content).split(/\r?\n/)[0]!
}
