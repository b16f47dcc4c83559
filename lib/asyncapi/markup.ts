const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

/** Returns text for HTML: the content of an element, or the value of an attribute in quotes. */
export function escape (text: unknown): string {
  return String(text).replace(/[&<>"']/g, character => entities[character]!)
}

/** Returns text in an element `code`. */
export function code (text: unknown): string {
  return `<code>${escape(text)}</code>`
}

/** Returns a line of text. Text in backticks becomes code; all other Markdown stays as it is. */
export function inline (text: unknown): string {
  return escape(text).replace(/`([^`\n]+)`/g, '<code>$1</code>')
}

/** Returns paragraphs for a text with empty lines between them. */
export function paragraphs (text: unknown): string {
  if (typeof text !== 'string' || text.trim() === '') return ''
  return text.trim().split(/\n\s*\n/).map(part => `<p>${inline(part)}</p>`).join('\n')
}

/** Returns a table; its cells are HTML. The first cell of each row is the row's heading. */
export function table (label: string, columns: string[], rows: string[][], className: string): string {
  const head = columns.map(column => `<th scope="col">${escape(column)}</th>`).join('')
  const body = rows.map(([first, ...others]) => `<tr><th scope="row">${first}</th>${others.map(cell => `<td>${cell}</td>`).join('')}</tr>`).join('\n')
  return `<table class="${className}" aria-label="${escape(label)}">
<thead><tr>${head}</tr></thead>
<tbody>
${body}
</tbody>
</table>`
}
