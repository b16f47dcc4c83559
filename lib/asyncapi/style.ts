import { createHash } from 'node:crypto'

/** The style sheet of the page. Colours have a contrast of at least 4.5 : 1 to their background, in both colour schemes. */
export const style = `
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #57606a; --line: #d0d7de; --edge: #818b98; --block: #f4f6f8; --link: #0757b0 }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaef; --quiet: #a3adb8; --line: #343b44; --edge: #6b7683; --block: #1d232a; --link: #7db7ff } }
* { box-sizing: border-box }
html { scroll-padding-top: 1rem }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere }
h1, h2, h3 { line-height: 1.25; margin: 2rem 0 .5rem }
h1 { margin-top: .5rem; font-size: 1.7rem }
h2 { font-size: 1.35rem; border-top: 1px solid var(--line); padding-top: 1.5rem }
h3 { font-size: 1.05rem }
p, ul { margin: .5rem 0 }
a { color: var(--link) }
a:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 2px }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem }
nav a { display: inline-block; padding: .6rem 0; min-width: 2.75rem }
.skip { position: absolute; left: -999rem }
.skip:focus { position: static }
.quiet { color: var(--quiet) }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { margin: .5rem 0; padding: .75rem; background: var(--block); border: 1px solid var(--line); border-radius: 6px; white-space: pre-wrap }
table { width: 100%; border-collapse: collapse; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--line) }
thead th { color: var(--quiet); font-weight: 600 }
tbody th { font-weight: 400 }
.schema { table-layout: fixed }
.schema th:first-child { width: 34% }
.schema th:nth-child(2) { width: 26% }
.codes { overflow-wrap: normal }
.who th:first-child { width: 5.5em }
.who td:nth-child(2), .who th:nth-child(2) { width: 7.5em }
details { border: 1px solid var(--line); border-radius: 6px; padding: 0 .75rem; margin: .5rem 0 }
summary { padding: .65rem 0; cursor: pointer }
@media (max-width: 30rem) { table { font-size: .9rem } th, td { padding-right: .4rem } details { padding: 0 .5rem } }
@media print { details:not([open]) > * { display: block } }
`

/** The Content Security Policy of the page: it loads nothing, runs no script, and has this style alone. */
export const policy = `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`
