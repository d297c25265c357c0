"""Say what a host can do, what was found and what was done."""

from fastcnn.reporting.doctor import DoctorReport, doctor

__all__ = ["DoctorReport", "doctor"]
