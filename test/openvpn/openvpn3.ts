/**
 * OpenVPN 3's client for Linux, as Debian packages it: services on a message bus of their own, below a root folder of their own, in a
 * host's network namespace. All of it is in namespaces of one process, and ends with that.
 *
 * Files of the lab's folder are at `/profiles` there; `resolv.conf` in it is what the client writes name servers to.
 */
import { appendFileSync, existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Running, start } from '../command.ts'
import type { Host } from '../interop/openvpn.ts'
import { until } from '../interop/programs.ts'
import { fetchOpenvpn3, Unavailable } from '../kernel/fetch.ts'
import { withoutNamespaces } from '../namespace.ts'

/** How the client's log names what it says itself. */
const CONNECTED = /Client INFO: Connected: /g
const PATIENCE_S = 60

const tree = withoutNamespaces
  ? new Unavailable(withoutNamespaces)
  : await fetchOpenvpn3().catch((error: Error) => {
      if (error instanceof Unavailable) return error
      throw error
    })

/** Why tests with OpenVPN 3 cannot run here; false when they can. */
export const withoutOpenvpn3: string | false = tree instanceof Unavailable && tree.message

/**
 * Its users are all root: who may ask whom is the bus's matter on a real machine, and here nobody else is on it. Commands of `openvpn3`
 * come as lines through a pipe, and run one after the other.
 */
const SCRIPT = `
set -e
tree=$1 folder=$2
mkdir "$folder/root"
mount -t tmpfs none "$folder/root"
cd "$folder/root"
mkdir -p usr proc dev sys tmp profiles run/dbus etc/services var/lib/openvpn3/configs
mount --bind "$tree/usr" usr
mount --bind "$folder" profiles
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc none proc
for part in bin sbin lib lib64; do ln -s usr/$part $part; done
ln -s /run var/run
printf 'root:x:0:0:::\\n_openvpn:x:0:0:::\\n' > etc/passwd
printf 'root:x:0:\\n_openvpn:x:0:\\n' > etc/group
echo 0123456789abcdef0123456789abcdef > etc/machine-id
cat > etc/bus.conf <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <servicedir>/etc/services</servicedir>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
END
service() {
  printf '[D-BUS Service]\\nName=net.openvpn.v3.%s\\nUser=root\\nExec=/usr/libexec/openvpn3-linux/openvpn3-service-%s\\n' \\
    "$1" "$2" > "etc/services/net.openvpn.v3.$1.service"
}
service sessions sessionmgr
service configuration configmgr
service backends backendstart
service log 'log --log-level 6'
service netcfg 'netcfg --resolv-conf /profiles/resolv.conf'
mkfifo profiles/commands
exec 3<>profiles/commands
chroot . /usr/bin/dbus-daemon --config-file=/etc/bus.conf --nofork --nopidfile --print-address 3<&- &
while read -r command <&3; do
  chroot . /usr/bin/openvpn3 $command </dev/null 2>&1 3<&- && status=0 || status=$?
  echo "ended with $status: $command"
done
`

export class Openvpn3 {
  readonly #running: Running
  readonly #folder: string
  #from = 0

  static async open({ netns }: Host, folder: string): Promise<Openvpn3> {
    if (tree instanceof Unavailable) throw tree
    writeFileSync(join(folder, 'resolv.conf'), '')
    const alone = ['unshare', '--mount', '--pid', '--fork', '--kill-child']
    const running = start('ip', [
      ...['netns', 'exec', netns.name, ...alone],
      ...['sh', '-c', SCRIPT, 'sh', tree, folder],
    ])
    await running.says(/unix:path=/)
    await until('the pipe', () => existsSync(join(folder, 'commands')), PATIENCE_S)
    return new Openvpn3(running, folder)
  }

  private constructor(running: Running, folder: string) {
    this.#running = running
    this.#folder = folder
  }

  /** What it has said since `start`. */
  get log(): string {
    return this.#running.stdout.slice(this.#from)
  }

  /** How often it has connected since `start`. */
  get connections(): number {
    return this.times(CONNECTED)
  }

  times(pattern: RegExp): number {
    return (this.log.match(new RegExp(pattern, 'g')) ?? []).length
  }

  async says(pattern: RegExp): Promise<RegExpExecArray> {
    await until(`${pattern} in ${this.log}`, () => pattern.test(this.log), PATIENCE_S)
    return pattern.exec(this.log)!
  }

  /** Begins to connect with a profile of the folder. */
  start(profile: string): void {
    this.#from = this.#running.stdout.length
    this.command(`session-start --background --config /profiles/${profile}`)
  }

  /** `--restart`, `--pause`, `--resume`, `--disconnect`. */
  manage(profile: string, what: string): void {
    this.command(`session-manage ${what} --config /profiles/${profile}`)
  }

  /** Ends its session, if it has not come to an end by itself. */
  async leave(profile: string): Promise<void> {
    this.manage(profile, '--disconnect')
    await this.says(/ended with \d+: session-manage --disconnect/)
  }

  async close(): Promise<void> {
    this.#running.kill('SIGKILL')
    await this.#running.ended
  }

  /** One of `openvpn3`'s; what it prints is in the log. */
  command(line: string): void {
    appendFileSync(join(this.#folder, 'commands'), `${line}\n`)
  }
}
