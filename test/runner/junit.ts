/** Reads the JUnit XML that `bun test` and Node's test runner write: which tests ran, and how they ended. */

export interface TestResult {
  /** Describes and test, outermost first, joined with " > ". */
  name: string
  outcome: 'passed' | 'failed' | 'skipped'
  /** Why it was skipped, where the runner writes that down (Node does). */
  reason: string | undefined
}

const TAG = /<(\/?)([a-z]+)((?:\s+[a-z]+="[^"]*")*)\s*(\/?)>/g
const ATTRIBUTE = /([a-z]+)="([^"]*)"/g

/**
 * All tests of one file's report. Throws an Error for a report that was not written to its end: the process was
 * gone before its tests were.
 *
 * @param own name that Bun gives to the suite around a file's tests; it is left out of names
 */
export function parseJunit(xml: string, own: string): TestResult[] {
  if (!xml.trimEnd().endsWith('</testsuites>')) throw new Error('the report is not complete')
  const results: TestResult[] = []
  const suites: string[] = []
  let current: TestResult | undefined
  for (const [, closing, tag, text, selfClosing] of xml.matchAll(TAG)) {
    const attributes = parseAttributes(text!)
    if (tag === 'testsuite') {
      if (closing === '/') suites.pop()
      else suites.push(attributes.name ?? '')
    } else if (tag === 'testcase') {
      if (closing === '/') {
        current = undefined
        continue
      }
      const path = suites[0] === own ? suites.slice(1) : suites
      const name = [...path, attributes.name ?? ''].join(' > ')
      const result: TestResult = { name, outcome: 'passed', reason: undefined }
      results.push(result)
      current = selfClosing === '/' ? undefined : result
    } else if (current !== undefined && closing === '') {
      if (tag === 'failure' || tag === 'error') current.outcome = 'failed'
      if (tag === 'skipped') {
        current.outcome = 'skipped'
        current.reason = attributes.message
      }
    }
  }
  return results
}

function parseAttributes(text: string): Record<string, string> {
  return Object.fromEntries(
    Array.from(text.matchAll(ATTRIBUTE), ([, name, value]) => [name, unescapeXml(value!)]),
  )
}

function unescapeXml(text: string): string {
  const named: Record<string, string> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }
  return text.replace(/&(?:#(\d+)|([a-z]+));/g, (whole, code, name) =>
    code === undefined ? (named[name] ?? whole) : String.fromCodePoint(Number(code)),
  )
}
