import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { number, publishInto, type Report, renderReport, table } from './report.ts'

describe('number', () => {
  const rows: [value: number, expected: string, why: string][] = [
    [0, '0', 'nothing'],
    [0.01234, '0.0123', 'three digits behind zeros'],
    [4.5678, '4.57', 'three digits'],
    [45.678, '45.7', 'three digits'],
    [456.78, '457', 'three digits'],
    [1234567, '1,234,567', 'no digit of a whole number is lost'],
    [Number.POSITIVE_INFINITY, '–', 'divided by nothing'],
    [Number.NaN, '–', 'nothing divided by nothing'],
  ]
  for (const [value, expected, why] of rows) {
    it(`${value}: ${why}`, () => assert.equal(number(value), expected))
  }
})

it('a table reads well as text', () => {
  assert.equal(
    table(
      ['who', 'much'],
      [
        ['a', '1'],
        ['bcde', '23456'],
      ],
    ),
    `| who  |  much |
| ---- | ----: |
| a    |     1 |
| bcde | 23456 |`,
  )
})

describe('a report', () => {
  const entrant = (label: string, ours: boolean, cipher?: string, missing?: string) => ({
    ...{ label, ours, cipher, version: '1' },
    ...(missing === undefined ? {} : { missing }),
  })
  const report: Report = {
    when: '2026-01-02T03:04:05Z',
    machine: { kernel: '6.1' },
    rounds: 3,
    seconds: 5,
    entrants: [
      entrant('bare', false),
      entrant('theirs b', false, 'b'),
      entrant('absent', false, 'a', 'not installed'),
      entrant('ours a', true, 'a'),
      entrant('ours b', true, 'b'),
    ],
    figures: [
      {
        metric: { name: 'm', title: 'Speed', unit: 'Gbit/s', better: 'more' },
        values: { bare: [8, 10, 9], 'theirs b': [1, 1, 1], 'ours a': [4.5], 'ours b': [3, 2] },
        failures: { 'ours a': ['no'] },
      },
      {
        metric: { name: 'n', title: 'Delay', unit: 'ms', better: 'less' },
        values: { 'theirs b': [5], 'ours b': [2] },
        failures: { bare: ['timeout'] },
      },
    ],
  }
  const text = renderReport(report)

  it('compares with the same in another way, and with nothing else then', () => {
    const changed = { ...entrant('changed b', false, 'b'), against: 'theirs b' }
    const [first, ...figures] = report.figures
    const values = { ...first!.values, 'changed b': [4] }
    const told = renderReport({
      ...report,
      entrants: [...report.entrants, changed],
      figures: [{ ...first!, values }, ...figures],
    })
    assert.match(told, /without `ovpn run` \| +Speed \|\n.*\n\| changed b +\| +4\.00× \|\n\n/)
    const [head] = /^\| times better: .*$/m.exec(told)!
    assert.doesNotMatch(head, /changed/)
    assert.doesNotMatch(text, /without `ovpn run`/)
  })

  it('compares with the same cipher, and the bare wire with the first of ours', () => {
    assert.match(text, /\| Speed +\| 0\.500× \| +2\.50× \|/)
  })

  it('counts less as better where it is', () => {
    assert.match(text, /\| Delay +\| +\| +2\.50× \|/)
  })

  it('has the median and the range, and how many rounds they are of', () => {
    assert.match(text, /\| bare +\| +9\.00 \| +8\.00 \| +10\.0 \| +3 \|/)
    assert.match(text, /\| ours a +\| +4\.50 \| +4\.50 \| +4\.50 \| 1, 1 failed \|/)
  })

  it('leaves nothing out in silence', () => {
    assert.match(text, /\| absent +\| not measured: not installed \|/)
    assert.match(text, /\| bare +\| failed \|/)
  })
})

describe('publishing', () => {
  it('replaces what is between the markers, and only that', () => {
    const page = 'a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n'
    const once = publishInto(page, 'bench', 'new')
    assert.equal(once, 'a\n<!-- bench:begin -->\nnew\n<!-- bench:end -->\nb\n')
    assert.equal(publishInto(once, 'bench', 'new'), once)
  })

  it('refuses a page without them', () => {
    assert.throws(() => publishInto('a', 'bench', 'new'), /expected <!-- bench:begin -->/)
  })
})
