"""What a client and a worker see and do."""

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from shop.models import Hold, Job, Wallet
from shop.payments import CURRENCY, ask_for_backjob, hold_payment


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The user's jobs with the state of their payments, and the user's wallet."""
    user = request.user
    jobs = Job.objects.filter(Q(client=user) | Q(worker=user)).order_by("pk")
    holds = {hold.job: hold for hold in Hold.objects.filter(job__in=[str(job.pk) for job in jobs])}
    rows = [
        {"job": job, "hold": holds.get(str(job.pk)), "is_client": job.client_id == user.pk} for job in jobs
    ]
    wallet = Wallet.objects.filter(owner=str(user.pk), currency=CURRENCY).first() or Wallet()
    return render(request, "home.html", {"rows": rows, "wallet": wallet})


@login_required
@require_POST
@transaction.atomic
def approve(request: HttpRequest, job_id: int) -> HttpResponse:
    """The client approves the work: the job's status and the worker's hold are one commit."""
    job = get_object_or_404(Job.objects.select_for_update(), pk=job_id, client=request.user)
    job.status = Job.Status.APPROVED
    job.save()
    hold_payment(job)
    return redirect("home")


@login_required
@require_POST
@transaction.atomic
def backjob(request: HttpRequest, job_id: int) -> HttpResponse:
    """The client asks for the work to be redone."""
    job = get_object_or_404(Job, pk=job_id, client=request.user)
    ask_for_backjob(job, by=request.user.pk, reason=request.POST.get("reason", ""))
    return redirect("home")
