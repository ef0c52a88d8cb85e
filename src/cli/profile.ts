/** `ovpn profile`: one file for a client, with all in it, from the server's configuration and a folder of certificates. */
import { readFileSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { Command, Option } from 'commander'
import { decodeText } from '../openvpn/config/parse.ts'
import { clientProfile } from '../openvpn/config/profile.ts'
import { readServerConfig, type ServerConfig } from '../openvpn/config/server-config.ts'
import { commonName, parseCertificate, readPem } from '../openvpn/x509/certificate.ts'
import { Pki } from '../openvpn/x509/pki.ts'
import { files } from '../runtime/files.ts'
import type { ClientKeyFile } from '../wire/static-key.ts'
import { CLIENT_KEY_BYTES, sealWkc, timestampMetadata } from '../wire/wkc.ts'
import type { Environment } from './compose.ts'
import { readSource } from './config-files.ts'
import { attempt, CliError } from './errors.ts'
import { madeHere, pkiHere } from './folders.ts'
import { withExamples } from './options.ts'

export interface ProfileOptions {
  config: string
  pki: string
  host?: string[]
  output?: string
}

export function profileCommand(environment: Environment): Command {
  const profile = new Command('profile')
    .description(
      'make a client’s profile: one file with all in it; a client that has no certificate yet is given one',
    )
    .argument('<name>', 'the client: the common name of its certificate')
    .addOption(configOption())
    .option('--pki <folder>', 'certificates, of `ovpn pki` or easy-rsa', pkiHere())
    .option(
      '--host <name...>',
      'what clients reach the server by (default: `local` of the configuration, or an address of this machine)',
    )
    .option('-o, --output <file>', 'a new file, readable by its owner only (default: stdout)')
    .action(async (name: string, options: ProfileOptions) => {
      const text = await attempt(`cannot make a profile for ${name}`, () =>
        makeProfile(environment, name, options),
      )
      const { output } = options
      if (output === undefined) return environment.print(text.trimEnd())
      await attempt(`cannot write ${output}`, () =>
        writeFileSync(output, text, { flag: 'wx', mode: 0o600 }),
      )
    })
  return withExamples(
    profile,
    'ovpn profile alice -o alice.ovpn      # where `ovpn server` has made a server',
    'ovpn profile alice --config server.conf --host vpn.example.org -o alice.ovpn',
    'ovpn profile bob -c /etc/openvpn/server/server.conf --pki /etc/openvpn/easy-rsa/pki > bob.ovpn',
  )
}

/** Of the server that `ovpn server` has made here, unless another is named. */
function configOption(): Option {
  const option = new Option('-c, --config <file>', "the server's configuration")
  const made = madeHere()
  return made === undefined ? option.makeOptionMandatory() : option.default(made.config)
}

/** The text of a profile. Rejects with an Error that says what is missing. */
export async function makeProfile(
  environment: Environment,
  name: string,
  options: ProfileOptions,
): Promise<string> {
  const server = readServerConfig(await readSource(options.config), files)
  const pki = Pki.open(options.pki)
  if (server.ca !== undefined && !trusts(server, pki)) {
    throw new CliError(
      `${options.config} trusts another authority than ${options.pki}/ca.crt: a client of ${options.pki} would be refused`,
    )
  }
  const identity =
    server.verifyClientCert === 'none' ? undefined : await identityOf(environment, pki, name)
  const hosts = options.host ?? [hostOf(environment, server)]
  return clientProfile(server, {
    name: `${name} for ${hosts.join(', ')}`,
    hosts,
    ca: pki.authority,
    serverName: serverNameOf(server),
    identity,
    tlsCryptV2: server.tlsCryptV2 && clientKey(environment, server.tlsCryptV2.key),
  })
}

/** Certificate and key of a name; made where there are none. */
async function identityOf(environment: Environment, pki: Pki, name: string) {
  if (!pki.has(name)) {
    await pki.issue('client', name)
    environment.note(`gave ${name} a certificate in ${pki.directory}`)
  }
  const { certificate, key } = pki.files(name)
  const pem = readFileSync(certificate, 'utf8')
  // Tools write what is in a certificate before it.
  return { certificate: pem.slice(pem.indexOf('-----BEGIN')), key: readFileSync(key, 'utf8') }
}

function trusts({ ca }: ServerConfig, { authority }: Pki): boolean {
  const [own] = readPem(authority, 'CERTIFICATE')
  const trusted = readPem(decodeText(ca!.content), 'CERTIFICATE')
  return own !== undefined && trusted.some((one) => Buffer.compare(one, own) === 0)
}

function serverNameOf({ cert }: ServerConfig): string | undefined {
  const [leaf] = cert === undefined ? [] : readPem(decodeText(cert.content), 'CERTIFICATE')
  return leaf && commonName(parseCertificate(leaf))
}

/** A key of its own for a client, wrapped for the server. */
function clientKey({ randomBytes, date }: Environment, serverKey: Uint8Array): ClientKeyFile {
  const key = randomBytes(CLIENT_KEY_BYTES)
  return { key, wkc: sealWkc(serverKey, key, timestampMetadata(date().getTime() / 1000)) }
}

const ANY = new Set(['0.0.0.0', '::', '127.0.0.1', '::1', 'localhost'])

/** Where the server listens, if that is one place; else the first address of this machine that is not its own only. */
function hostOf(environment: Environment, { listeners }: ServerConfig): string {
  const named = listeners.map(({ host }) => host).find((host) => host && !ANY.has(host))
  if (named !== undefined) return named
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? [])
  const outside = addresses.filter(
    ({ internal, address }) => !internal && !address.startsWith('fe80:'),
  )
  const found = outside.find(({ address }) => isIP(address) === 4) ?? outside[0]
  if (found === undefined) {
    throw new CliError('this machine has no address: tell what clients reach it by with --host')
  }
  environment.note(
    `the profile names this machine's address ${found.address}; --host names another`,
  )
  return found.address
}
