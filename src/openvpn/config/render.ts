/** A configuration back to text: words quoted where they must be, files as inline blocks. */

/** A line, or a block: `content` is its text. */
export type Rendered =
  | { readonly name: string; readonly args: readonly string[] }
  | { readonly name: string; readonly content: string }
  | { readonly comment: string }

/** Throws an Error for what no configuration can say: a line break in a word, a block that ends within its content. */
export function renderConfig(parts: readonly Rendered[]): string {
  return parts.map((part) => `${renderPart(part)}\n`).join('')
}

function renderPart(part: Rendered): string {
  if ('comment' in part) {
    return part.comment
      .split('\n')
      .map((line) => (line === '' ? '' : `# ${line}`))
      .join('\n')
  }
  if ('args' in part) return [part.name, ...part.args].map(quoteWord).join(' ')
  const { name, content } = part
  const lines = content.split('\n').map((line) => line.trimEnd())
  if (lines.at(-1) === '') lines.pop()
  if (lines.some((line) => line.trimStart().startsWith(`</${name}>`))) {
    throw new Error(`the content of a block <${name}> ends it`)
  }
  return [`<${name}>`, ...lines, `</${name}>`].join('\n')
}

/** `a b` → `"a b"`; a word that needs no quotes stays as it is. */
export function quoteWord(word: string): string {
  if (/[\p{Cc}]/u.test(word.replaceAll('\t', ''))) {
    throw new Error('a word of a configuration has no line break')
  }
  if (/^[^\s"'\\#;<]+[^\s"'\\]*$/.test(word)) return word
  return `"${word.replace(/["\\]/g, '\\$&')}"`
}
