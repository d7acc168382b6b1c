// A file of the visitor's, as text that a request can hold.

export function inBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("this file cannot be read"));
    reader.readAsDataURL(file);
  });
}
