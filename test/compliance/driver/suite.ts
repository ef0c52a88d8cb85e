/**
 * The conformance suite as a program: plays every scenario on one driver and prints the transcript as one line of JSON.
 * Needs root; uses namespaces of its own. With a name, plays the scenarios whose name begins with it.
 *
 *     bun suite.ts kernel|user [NAME] > transcript.json
 */
import { execFileSync } from 'node:child_process'
import { writeSync } from 'node:fs'
import { openLab } from './lab.ts'
import { scenarios } from './scenarios/index.ts'
import { Stage, Theatre } from './stage.ts'
import { kernel } from './subject.ts'
import type { Transcript } from './transcript.ts'

const [kind, only = ''] = process.argv.slice(2)
if (kind !== 'kernel' && kind !== 'user') {
  process.stderr.write('usage: suite.ts kernel|user [NAME]\n')
  process.exit(2)
}

const subject = kind === 'kernel' ? kernel : (await import('./user-subject.ts')).openUser()
const lab = openLab()
let transcript: Transcript
try {
  const theatre = new Theatre(subject, lab)
  await theatre.open()
  for (const [name, play] of Object.entries(scenarios)) {
    if (!name.startsWith(only)) continue
    const start = performance.now()
    const stage = new Stage(theatre, name)
    try {
      await play(stage)
    } catch (error) {
      // What was seen up to here counts; the scenario of the other driver has more.
      stage.note('broke off', (error as Error).message)
      process.stderr.write(`${name}: ${(error as Error).stack}\n`)
    } finally {
      await stage[Symbol.asyncDispose]()
    }
    process.stderr.write(`${name}: ${Math.round(performance.now() - start)} ms\n`)
  }
  theatre.close()
  const release = execFileSync('uname', ['-r'], { encoding: 'utf8' }).trim()
  transcript = { driver: kind, kernel: release, steps: theatre.steps }
} finally {
  await subject.close()
  lab[Symbol.dispose]()
}
const text = Buffer.from(`${JSON.stringify(transcript)}\n`)
// A pipe takes it in pieces.
for (let at = 0; at < text.length; ) at += writeSync(1, text, at)
process.exit(0)
