// Light or dark, before anything is drawn. What was chosen is remembered; else it follows the system.
try {
  const chosen = localStorage.getItem("headrace-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* a browser that keeps nothing */ }
