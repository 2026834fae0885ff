// Before the first paint, so that a dark page does not flash. A file of its own: the policy allows no inline script.
try {
  const theme = localStorage.getItem('theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is shut: the system's theme holds.
}
