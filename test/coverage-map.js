/**
 * Coverage counts only lib as the tests import it, for every test file. The processes that tests start
 * inherit the coverage, and load dist, example and whole temporary projects.
 */
export default () => 'lib/**/*.ts'
