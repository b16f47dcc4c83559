import { JSDOM } from 'jsdom'

/**
 * Makes a page with an element `#root`, and its globals. Import this before `react-dom`, which reads them.
 * @param url - the address of the page, where relative URLs begin
 */
export function openPage (url = 'http://127.0.0.1/'): JSDOM {
  const dom = new JSDOM('<!doctype html><div id="root"></div>', { url, pretendToBeVisual: true })
  const { window } = dom
  for (const name of ['window', 'document', 'location', 'navigator', 'FormData', 'Event', 'HTMLElement'] as const) {
    Object.defineProperty(globalThis, name, { value: name === 'window' ? window : window[name], configurable: true, writable: true })
  }
  return dom
}
